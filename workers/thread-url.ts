/**
 * Where a thread's file is, from the sources (.ts) and from the compiled package (.js). Any thread.
 */

/** The URL of the file `name` beside the importing file, with that file's own ending. */
export function threadUrl(name: string, importMetaUrl: string): URL {
  return new URL(`./${name}${importMetaUrl.endsWith('.ts') ? '.ts' : '.js'}`, importMetaUrl);
}
