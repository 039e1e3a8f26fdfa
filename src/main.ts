#!/usr/bin/env node
/**
 * The bin. Owns one thing: under a Node that is too old it says so in one line and ends, before anything else
 * is loaded (the SQLite driver would crash the process, and type stripping would be missing). Therefore it
 * imports nothing statically and uses no syntax that an older Node cannot parse. Main thread.
 */
export {};

const NODE_MAJOR_MIN = 24;

if (Number.parseInt(process.versions.node, 10) < NODE_MAJOR_MIN) {
  process.stderr.write(
    `streamhouse: Node ${NODE_MAJOR_MIN} or newer is needed, this is ${process.version} (${process.execPath})\n`,
  );
  process.exitCode = 1;
} else {
  const { runProcess } = await import('./cli/process-shell.ts');
  await runProcess();
}
