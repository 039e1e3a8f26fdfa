/** Moving a cluster from store to store, over the backends there are. */
import { join } from 'node:path';
import { type MetadataPlace, moveClusterSuite } from './move-cluster.ts';

function sqlite(name: string): MetadataPlace {
  return { name, open: async (folder) => ({ url: `sqlite:${join(folder, `${name}.db`)}` }) };
}

moveClusterSuite([sqlite('sqlite-a'), sqlite('sqlite-b'), sqlite('sqlite-c')]);
