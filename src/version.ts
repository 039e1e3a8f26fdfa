/**
 * The version of this program, from the package's own package.json: one level up from the sources, two from the
 * compiled file. Main thread.
 */
import { readFileSync } from 'node:fs';

export const packageVersion: string = readVersion();

function readVersion(): string {
  for (const path of ['../package.json', '../../package.json']) {
    const content = readIfThere(new URL(path, import.meta.url));
    if (content !== null) return (JSON.parse(content) as { version: string }).version;
  }
  throw new Error('package.json is missing');
}

function readIfThere(url: URL): string | null {
  try {
    return readFileSync(url, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
