/**
 * The base of every store that passes calls on: to another thread, around an observer, past a cache, into a
 * fault. Owns: the list of the contract's methods with what each may do, and the one funnel through which all
 * of them go. A method added to the contract does not compile until it stands here, and then none of the
 * decorators can have missed it. Pure; any thread.
 */
import type { MetadataStore } from './metadata-store.ts';

/** The calls of the contract: every method but `close`. */
export type MetadataMethod = Exclude<keyof MetadataStore, 'description' | 'bodyBytesMax' | 'close'>;
export type MetadataArguments<M extends MetadataMethod> = Parameters<MetadataStore[M]>;
export type MetadataResult<M extends MetadataMethod> = Awaited<ReturnType<MetadataStore[M]>>;

/** Whether a call changes anything: a lost reply to a read is 'store-unavailable', to a write 'store-unknown'. */
export const METADATA_METHODS = {
  initCluster: 'write',
  getCluster: 'read',
  createTopic: 'write',
  getTopic: 'read',
  getTopicsById: 'read',
  listTopics: 'read',
  growTopic: 'write',
  alterTopic: 'write',
  deleteTopic: 'write',
  listDeletedTopics: 'read',
  forgetDeletedTopic: 'write',
  appendEntries: 'write',
  readEntries: 'read',
  readHead: 'read',
  trim: 'write',
  putPages: 'write',
  findPages: 'read',
  listPages: 'read',
  deletePages: 'write',
  putCheckpoint: 'write',
  getCheckpoint: 'read',
  movePointer: 'write',
  deleteOldCheckpoints: 'write',
  getObjects: 'read',
  listObjects: 'read',
  dropReferences: 'write',
  markObjects: 'write',
  forgetObjects: 'write',
  registerAgent: 'write',
  heartbeat: 'write',
  getAgent: 'read',
  listAgents: 'read',
  deregisterAgent: 'write',
  acquireLeases: 'write',
  releaseLeases: 'write',
  listLeases: 'read',
  allocateProducerIds: 'write',
  getLastIds: 'read',
  scanPages: 'read',
  importRows: 'write',
  importCluster: 'write',
  setMovedTo: 'write',
} as const satisfies Record<MetadataMethod, 'read' | 'write'>;

/** Calls one method of a store by name. */
export function callMetadataStore<M extends MetadataMethod>(
  store: MetadataStore,
  method: M,
  args: MetadataArguments<M>,
): Promise<MetadataResult<M>> {
  // TypeScript cannot follow that the method and the arguments of the same M fit one another.
  const call = store[method] as (...args: MetadataArguments<M>) => Promise<MetadataResult<M>>;
  return call.apply(store, args);
}

export abstract class ForwardingMetadataStore implements MetadataStore {
  abstract readonly description: string;
  abstract readonly bodyBytesMax: number;
  abstract close(): Promise<void>;

  /** Every call of the contract comes through here. */
  protected abstract forward<M extends MetadataMethod>(
    method: M,
    args: MetadataArguments<M>,
  ): Promise<MetadataResult<M>>;

  initCluster(...args: MetadataArguments<'initCluster'>): Promise<MetadataResult<'initCluster'>> {
    return this.forward('initCluster', args);
  }

  getCluster(...args: MetadataArguments<'getCluster'>): Promise<MetadataResult<'getCluster'>> {
    return this.forward('getCluster', args);
  }

  createTopic(...args: MetadataArguments<'createTopic'>): Promise<MetadataResult<'createTopic'>> {
    return this.forward('createTopic', args);
  }

  getTopic(...args: MetadataArguments<'getTopic'>): Promise<MetadataResult<'getTopic'>> {
    return this.forward('getTopic', args);
  }

  getTopicsById(...args: MetadataArguments<'getTopicsById'>): Promise<MetadataResult<'getTopicsById'>> {
    return this.forward('getTopicsById', args);
  }

  listTopics(...args: MetadataArguments<'listTopics'>): Promise<MetadataResult<'listTopics'>> {
    return this.forward('listTopics', args);
  }

  growTopic(...args: MetadataArguments<'growTopic'>): Promise<MetadataResult<'growTopic'>> {
    return this.forward('growTopic', args);
  }

  alterTopic(...args: MetadataArguments<'alterTopic'>): Promise<MetadataResult<'alterTopic'>> {
    return this.forward('alterTopic', args);
  }

  deleteTopic(...args: MetadataArguments<'deleteTopic'>): Promise<MetadataResult<'deleteTopic'>> {
    return this.forward('deleteTopic', args);
  }

  listDeletedTopics(
    ...args: MetadataArguments<'listDeletedTopics'>
  ): Promise<MetadataResult<'listDeletedTopics'>> {
    return this.forward('listDeletedTopics', args);
  }

  forgetDeletedTopic(
    ...args: MetadataArguments<'forgetDeletedTopic'>
  ): Promise<MetadataResult<'forgetDeletedTopic'>> {
    return this.forward('forgetDeletedTopic', args);
  }

  appendEntries(...args: MetadataArguments<'appendEntries'>): Promise<MetadataResult<'appendEntries'>> {
    return this.forward('appendEntries', args);
  }

  readEntries(...args: MetadataArguments<'readEntries'>): Promise<MetadataResult<'readEntries'>> {
    return this.forward('readEntries', args);
  }

  readHead(...args: MetadataArguments<'readHead'>): Promise<MetadataResult<'readHead'>> {
    return this.forward('readHead', args);
  }

  trim(...args: MetadataArguments<'trim'>): Promise<MetadataResult<'trim'>> {
    return this.forward('trim', args);
  }

  putPages(...args: MetadataArguments<'putPages'>): Promise<MetadataResult<'putPages'>> {
    return this.forward('putPages', args);
  }

  findPages(...args: MetadataArguments<'findPages'>): Promise<MetadataResult<'findPages'>> {
    return this.forward('findPages', args);
  }

  listPages(...args: MetadataArguments<'listPages'>): Promise<MetadataResult<'listPages'>> {
    return this.forward('listPages', args);
  }

  deletePages(...args: MetadataArguments<'deletePages'>): Promise<MetadataResult<'deletePages'>> {
    return this.forward('deletePages', args);
  }

  putCheckpoint(...args: MetadataArguments<'putCheckpoint'>): Promise<MetadataResult<'putCheckpoint'>> {
    return this.forward('putCheckpoint', args);
  }

  getCheckpoint(...args: MetadataArguments<'getCheckpoint'>): Promise<MetadataResult<'getCheckpoint'>> {
    return this.forward('getCheckpoint', args);
  }

  movePointer(...args: MetadataArguments<'movePointer'>): Promise<MetadataResult<'movePointer'>> {
    return this.forward('movePointer', args);
  }

  deleteOldCheckpoints(
    ...args: MetadataArguments<'deleteOldCheckpoints'>
  ): Promise<MetadataResult<'deleteOldCheckpoints'>> {
    return this.forward('deleteOldCheckpoints', args);
  }

  getObjects(...args: MetadataArguments<'getObjects'>): Promise<MetadataResult<'getObjects'>> {
    return this.forward('getObjects', args);
  }

  listObjects(...args: MetadataArguments<'listObjects'>): Promise<MetadataResult<'listObjects'>> {
    return this.forward('listObjects', args);
  }

  dropReferences(...args: MetadataArguments<'dropReferences'>): Promise<MetadataResult<'dropReferences'>> {
    return this.forward('dropReferences', args);
  }

  markObjects(...args: MetadataArguments<'markObjects'>): Promise<MetadataResult<'markObjects'>> {
    return this.forward('markObjects', args);
  }

  forgetObjects(...args: MetadataArguments<'forgetObjects'>): Promise<MetadataResult<'forgetObjects'>> {
    return this.forward('forgetObjects', args);
  }

  registerAgent(...args: MetadataArguments<'registerAgent'>): Promise<MetadataResult<'registerAgent'>> {
    return this.forward('registerAgent', args);
  }

  heartbeat(...args: MetadataArguments<'heartbeat'>): Promise<MetadataResult<'heartbeat'>> {
    return this.forward('heartbeat', args);
  }

  getAgent(...args: MetadataArguments<'getAgent'>): Promise<MetadataResult<'getAgent'>> {
    return this.forward('getAgent', args);
  }

  listAgents(...args: MetadataArguments<'listAgents'>): Promise<MetadataResult<'listAgents'>> {
    return this.forward('listAgents', args);
  }

  deregisterAgent(...args: MetadataArguments<'deregisterAgent'>): Promise<MetadataResult<'deregisterAgent'>> {
    return this.forward('deregisterAgent', args);
  }

  acquireLeases(...args: MetadataArguments<'acquireLeases'>): Promise<MetadataResult<'acquireLeases'>> {
    return this.forward('acquireLeases', args);
  }

  releaseLeases(...args: MetadataArguments<'releaseLeases'>): Promise<MetadataResult<'releaseLeases'>> {
    return this.forward('releaseLeases', args);
  }

  listLeases(...args: MetadataArguments<'listLeases'>): Promise<MetadataResult<'listLeases'>> {
    return this.forward('listLeases', args);
  }

  allocateProducerIds(
    ...args: MetadataArguments<'allocateProducerIds'>
  ): Promise<MetadataResult<'allocateProducerIds'>> {
    return this.forward('allocateProducerIds', args);
  }

  getLastIds(...args: MetadataArguments<'getLastIds'>): Promise<MetadataResult<'getLastIds'>> {
    return this.forward('getLastIds', args);
  }

  scanPages(...args: MetadataArguments<'scanPages'>): Promise<MetadataResult<'scanPages'>> {
    return this.forward('scanPages', args);
  }

  importRows(...args: MetadataArguments<'importRows'>): Promise<MetadataResult<'importRows'>> {
    return this.forward('importRows', args);
  }

  importCluster(...args: MetadataArguments<'importCluster'>): Promise<MetadataResult<'importCluster'>> {
    return this.forward('importCluster', args);
  }

  setMovedTo(...args: MetadataArguments<'setMovedTo'>): Promise<MetadataResult<'setMovedTo'>> {
    return this.forward('setMovedTo', args);
  }
}
