/**
 * The project's own sources as the tests of its rules see them: which files there are, what each imports, and
 * its code without comments and texts. Does not own any rule. Good enough for formatted sources, no parser:
 * it knows comments, texts, templates and regular expressions, nothing else of the language.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface SourceImport {
  specifier: string;
  typeOnly: boolean;
  line: number;
}

export interface SourceFile {
  /** From the project's root, with slashes. */
  path: string;
  /** Line for line the file's code, with comments and the insides of texts blanked. */
  code: string;
  imports: SourceImport[];
}

/** All TypeScript files below the folders, by path. */
export function sourceFiles(folders: readonly string[]): SourceFile[] {
  const files: SourceFile[] = [];
  for (const folder of folders) {
    for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
      const path = relative(ROOT, join(entry.parentPath, entry.name)).replaceAll('\\', '/');
      files.push(scanSource(path, readFileSync(join(ROOT, path), 'utf8')));
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

export function scanSource(path: string, source: string): SourceFile {
  const { code, texts } = blank(source);
  const imports: SourceImport[] = [];
  // Texts are blanked, quotes stay: `from '   '`. What stood there is looked up by its position.
  const add = (match: RegExpExecArray, typeOnly: boolean): void => {
    const quoteAt = match.index + match[0].length - 1;
    const specifier = texts.get(quoteAt);
    if (specifier === undefined) return;
    imports.push({ specifier, typeOnly, line: source.slice(0, match.index).split('\n').length });
  };
  for (const match of code.matchAll(/^(?:import|export)\b([^;'"`]*?)\bfrom\s*['"]/gm)) {
    add(match, /^\s+type\b/.test(match[1]));
  }
  for (const match of code.matchAll(/^import\s*['"]/gm)) add(match, false);
  for (const match of code.matchAll(/(?<![.\w])import\(\s*['"]/g)) add(match, false);
  for (const match of code.matchAll(/\bnew URL\(\s*['"](?=[^'"]*['"],\s*import\.meta\.url)/g)) {
    // A thread's entry file is named by its URL; other URLs (of data files) are no imports.
    const specifier = texts.get(match.index + match[0].length - 1);
    if (specifier?.startsWith('.') && specifier.endsWith('.ts')) add(match, false);
  }
  return { path, code, imports };
}

/** Blanks comments and insides of texts; `texts` maps the position of an opening quote to what it opens. */
function blank(source: string): { code: string; texts: Map<number, string> } {
  const out = source.split('');
  const texts = new Map<number, string>();
  /** Depth of braces at which an open template goes on. */
  const templates: number[] = [];
  let depth = 0;
  let i = 0;
  const wipe = (from: number, to: number): void => {
    for (let at = from; at < to; at++) if (out[at] !== '\n') out[at] = ' ';
  };
  const template = (from: number): number => {
    let at = from;
    while (at < source.length && source[at] !== '`' && !(source[at] === '$' && source[at + 1] === '{')) {
      at += source[at] === '\\' ? 2 : 1;
    }
    wipe(from, Math.min(at, source.length));
    if (source[at] === '`') return at + 1;
    templates.push(depth++);
    return at + 2;
  };
  while (i < source.length) {
    const c = source[i];
    const two = source.slice(i, i + 2);
    if (two === '//' || two === '/*') {
      const close = two === '//' ? source.indexOf('\n', i) : source.indexOf('*/', i + 2) + 2;
      const end = close < 2 ? source.length : close;
      wipe(i, end);
      i = end;
    } else if (c === "'" || c === '"') {
      let end = i + 1;
      while (end < source.length && source[end] !== c) end += source[end] === '\\' ? 2 : 1;
      texts.set(i, source.slice(i + 1, end));
      wipe(i + 1, end);
      i = end + 1;
    } else if (c === '`') {
      i = template(i + 1);
    } else if (c === '{') {
      depth++;
      i++;
    } else if (c === '}') {
      depth--;
      if (templates.at(-1) === depth) {
        templates.pop();
        i = template(i + 1);
      } else i++;
    } else if (c === '/' && beginsRegex(out, i)) {
      i = regexEnd(source, i);
    } else {
      i++;
    }
  }
  return { code: out.join(''), texts };
}

/** After an operand a slash divides, anywhere else it begins a regular expression. */
function beginsRegex(out: readonly string[], at: number): boolean {
  let before = at - 1;
  while (before >= 0 && /\s/.test(out[before])) before--;
  if (before < 0) return true;
  if (!/[\w$)\]}'"`]/.test(out[before])) return true;
  const word = /([a-z]+)$/.exec(out.slice(Math.max(0, before - 10), before + 1).join(''))?.[1];
  return word !== undefined && ['return', 'typeof', 'case', 'of', 'in', 'yield', 'await'].includes(word);
}

function regexEnd(source: string, from: number): number {
  let inClass = false;
  for (let at = from + 1; at < source.length; at++) {
    const c = source[at];
    if (c === '\\') at++;
    else if (c === '[') inClass = true;
    else if (c === ']') inClass = false;
    else if (c === '\n') return from + 1;
    else if (c === '/' && !inClass) return at + 1;
  }
  return source.length;
}
