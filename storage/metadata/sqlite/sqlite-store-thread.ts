/**
 * The storing thread: the one thread that writes the SQLite file. Owns: opening and closing the store and giving
 * every port that it is sent a server. It is a worker thread's entry; open-sqlite-store starts it. A bug of the
 * store's ends the thread: its ports close, so that nobody waits for an answer.
 *
 *   parent -> thread   StoreThreadCommand
 *   thread -> parent   StoreThreadEvent: first 'ready' or 'failed', last 'closed'
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../../../src/core/clock.ts';
import { type PlainError, StreamHouseError } from '../../../src/core/errors.ts';
import { serveMetadataStore } from '../served-metadata-store.ts';
import { openSqliteConnection, type SqliteSettings } from './sqlite-connection.ts';
import { SqliteMetadataStore } from './sqlite-metadata-store.ts';

export type StoreThreadData = Omit<SqliteSettings, 'clock'>;
export type StoreThreadCommand = { kind: 'serve'; port: MessagePort } | { kind: 'close' };
export type StoreThreadEvent =
  | { kind: 'ready'; description: string; bodyBytesMax: number }
  | { kind: 'failed'; error: PlainError }
  | { kind: 'closed' };

async function openStore(): Promise<SqliteMetadataStore | null> {
  try {
    const settings = { ...(workerData as StoreThreadData), clock: systemClock };
    return new SqliteMetadataStore(await openSqliteConnection(settings));
  } catch (error) {
    if (!(error instanceof StreamHouseError)) throw error;
    tell({ kind: 'failed', error: error.toPlain() });
    return null;
  }
}

function tell(event: StoreThreadEvent): void {
  parentPort!.postMessage(event);
}

const store = await openStore();
if (store) {
  parentPort!.on('message', async (command: StoreThreadCommand) => {
    if (command.kind === 'serve') {
      serveMetadataStore(store, command.port, {
        afterWrite: () => store.writeBackIfDue(),
        // Out of every promise, so that it ends the thread and is told to the parent as it is.
        onBug: (error) =>
          process.nextTick(() => {
            throw error;
          }),
      });
      return;
    }
    await store.close();
    tell({ kind: 'closed' });
    process.exit();
  });
  tell({ kind: 'ready', description: store.description, bodyBytesMax: store.bodyBytesMax });
}
