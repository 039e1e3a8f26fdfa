/** Moving a cluster from store to store: through every backend and back, and from one file to the next. */
import { moveClusterSuite } from './move-cluster.ts';

moveClusterSuite(['sqlite', 'sqlite', 'sqlite']);
moveClusterSuite(['sqlite', 'postgres', 'dynamodb', 'cockroachdb', 'sqlite']);
