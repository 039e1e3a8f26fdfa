/** What the tests use of dynalite, which ships no types. */
declare module 'dynalite' {
  import type { Server } from 'node:http';

  interface DynaliteOptions {
    /** How long a table stays in CREATING and in DELETING, ms. */
    createTableMs?: number;
    deleteTableMs?: number;
  }

  function dynalite(options?: DynaliteOptions): Server;
  export = dynalite;
}
