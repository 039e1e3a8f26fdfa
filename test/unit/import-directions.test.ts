/**
 * The rules that keep the parts apart, as a test: who may import whom, no cycles, packages only where they
 * belong, and time and randomness only through core/clock and core/random. The rules are the tables below; an
 * exception is a line in EXCEPTIONS with its reason, and one that is not needed any more fails too.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT, type SourceFile, scanSource, sourceFiles } from '../support/source-scan.ts';

const SHIPPED = ['src', 'workers', 'index', 'storage', 'migrations'];

/**
 * By the longest prefix of a file's path: the prefixes it may import, beside its own. A `type ` before a prefix
 * allows types only. '*' is everything shipped.
 */
const MAY_IMPORT: Record<string, readonly string[]> = {
  'src/core/': [],
  'src/protocol/': ['src/core/'],
  'src/client/': ['src/core/'],
  'src/observe/': ['src/core/', 'workers/', 'type storage/', 'type src/route/', 'type src/server/'],
  'src/route/': ['src/core/', 'workers/', 'type index/', 'type storage/'],
  'src/agent/': ['src/core/', 'workers/', 'type index/', 'type storage/', 'type src/route/'],
  'src/peer/': ['src/core/', 'src/protocol/', 'workers/', 'type src/route/', 'type storage/'],
  'src/group/': ['src/core/', 'workers/', 'type index/', 'type storage/'],
  'src/server/': [
    'src/core/',
    'src/protocol/',
    'src/route/',
    'src/peer/',
    'src/agent/',
    'src/group/',
    'type storage/',
  ],
  'src/setting-values.ts': [],
  'src/setting-table.ts': ['src/core/'],
  'src/settings.ts': ['src/core/', 'src/setting-table.ts', 'src/setting-values.ts'],
  'src/version.ts': [],
  'src/cluster-stamp.ts': ['src/core/', 'storage/'],
  'src/inspect/': ['src/core/', 'workers/', 'index/', 'storage/'],
  'src/verify/': ['src/core/', 'src/cluster-stamp.ts', 'src/inspect/', 'workers/', 'index/', 'storage/'],
  'src/move/': ['src/core/', 'src/cluster-stamp.ts', 'src/agent/', 'storage/'],
  'src/load/': ['src/core/', 'src/client/', 'src/version.ts', 'type storage/'],
  'src/compose.ts': ['*'],
  'src/start-checks.ts': ['src/core/', 'src/settings.ts', 'src/agent/', 'type src/peer/', 'storage/'],
  'src/cli/': ['*'],
  'src/main.ts': ['src/cli/'],
  'index/': ['src/core/', 'type storage/'],
  'storage/': ['src/core/', 'migrations/'],
  'migrations/': ['src/core/', 'type storage/'],
  'workers/': ['src/core/', 'index/', 'storage/'],
};

/** Packages, and the only places that may import them. Whatever is not here may not be imported at all. */
const PACKAGES: Record<string, readonly string[]> = {
  '@aws-sdk/client-dynamodb': ['storage/metadata/dynamodb/', 'migrations/'],
  '@aws-sdk/client-s3': ['storage/objects/'],
  'better-sqlite3': ['storage/metadata/sqlite/', 'migrations/'],
  'cli-progress': ['src/cli/'],
  commander: ['src/cli/'],
  'find-my-way': ['src/server/http/'],
  'hdr-histogram-js': ['src/load/'],
  'lru-cache': ['storage/metadata/', 'storage/objects/'],
  // Backends that speak PostgreSQL's protocol share storage/metadata/pg-wire.
  pg: ['storage/metadata/pg-wire/'],
  pino: ['src/observe/'],
  piscina: ['workers/'],
  'prom-client': ['src/observe/'],
  'sorted-btree': ['index/'],
  typebox: ['src/protocol/http/', 'src/protocol/peer/', 'src/server/http/', 'src/peer/', 'src/load/'],
  undici: ['src/client/', 'src/peer/', 'src/load/'],
};

/** Modules of Node that do input or output: not for the pure parts. */
const IO_MODULES =
  /^node:(fs|net|http|https|http2|tls|dgram|dns|child_process|cluster|worker_threads|timers)(\/|$)/;
const PURE = ['src/core/', 'src/protocol/', 'index/'];

/** What reads the system's clock, waits by it, or draws from its randomness. */
const BANNED: readonly { name: string; pattern: RegExp }[] = [
  { name: 'Date.now', pattern: /\bDate\.now\b/ },
  { name: 'new Date()', pattern: /\bnew Date\(\s*\)|\bnew Date\b(?!\s*\()/ },
  { name: 'performance.now', pattern: /\bperformance\.(now|timeOrigin)\b/ },
  { name: 'process.hrtime', pattern: /\bprocess\.(hrtime|uptime)\b/ },
  // Sockets and servers have a setTimeout of their own, which is a setting of theirs.
  { name: 'setTimeout', pattern: /(?<!\.)\bsetTimeout\b|\b(globalThis|global)\.setTimeout\b/ },
  { name: 'setInterval', pattern: /\bsetInterval\b/ },
  { name: 'AbortSignal.timeout', pattern: /\bAbortSignal\.timeout\b/ },
  { name: 'Math.random', pattern: /\bMath\.random\b/ },
  {
    name: 'crypto random',
    pattern: /\b(randomBytes|randomUUID|randomInt|randomFill|randomFillSync|getRandomValues)\b/,
  },
];
const BAN_FREE = ['src/core/clock.ts', 'src/core/random.ts'];

/** What breaks a rule for a good reason. `what` is an import's specifier, or a name of BANNED. */
const EXCEPTIONS: readonly { file: string; what: string; reason: string }[] = [];

const files = sourceFiles(SHIPPED);
const byPath = new Map(files.map((file) => [file.path, file]));
const used = new Set<string>();

function excepted(file: string, what: string): boolean {
  const exception = EXCEPTIONS.find((one) => one.file === file && one.what === what);
  if (exception !== undefined) used.add(`${file}: ${what}`);
  return exception !== undefined;
}

function longestPrefix<T>(table: Record<string, T>, path: string): string | undefined {
  return Object.keys(table)
    .filter((prefix) => path.startsWith(prefix))
    .sort((a, b) => b.length - a.length)[0];
}

/** The project's file that a relative specifier names. */
function resolved(file: SourceFile, specifier: string): string {
  return join(dirname(file.path), specifier).replaceAll('\\', '/');
}

function packageOf(specifier: string): string {
  return specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
}

function mayImport(from: string, to: string, typeOnly: boolean): boolean {
  const own = longestPrefix(MAY_IMPORT, from);
  if (own === undefined) return false;
  if (to.startsWith(own)) return true;
  return MAY_IMPORT[own].some((rule) => {
    if (rule === '*') return SHIPPED.some((folder) => to.startsWith(`${folder}/`));
    return rule.startsWith('type ') ? typeOnly && to.startsWith(rule.slice(5)) : to.startsWith(rule);
  });
}

describe('import directions', () => {
  it('finds the sources', () => {
    assert.ok(files.length > 20);
    for (const file of files) assert.ok(longestPrefix(MAY_IMPORT, file.path), `${file.path} has no rule`);
  });

  it('are kept by every import', () => {
    const wrong: string[] = [];
    for (const file of files) {
      for (const { specifier, typeOnly, line } of file.imports) {
        if (!specifier.startsWith('.')) continue;
        const target = resolved(file, specifier);
        if (mayImport(file.path, target, typeOnly) || excepted(file.path, specifier)) continue;
        wrong.push(`${file.path}:${line} must not import ${target}${typeOnly ? ' (a type)' : ''}`);
      }
    }
    assert.deepEqual(wrong, []);
  });

  it('have no cycles', () => {
    const state = new Map<string, 'open' | 'done'>();
    const cycles: string[] = [];
    const visit = (path: string, trail: string[]): void => {
      if (state.get(path) === 'open') cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      if (state.has(path)) return;
      state.set(path, 'open');
      const file = byPath.get(path);
      for (const { specifier } of file?.imports ?? []) {
        if (file !== undefined && specifier.startsWith('.'))
          visit(resolved(file, specifier), [...trail, path]);
      }
      state.set(path, 'done');
    };
    for (const { path } of files) visit(path, []);
    assert.deepEqual(cycles, []);
  });

  it('lets packages in only where they belong, and only those that are installed with the product', () => {
    const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
    const wrong: string[] = [];
    for (const file of files) {
      for (const { specifier, line } of file.imports) {
        if (/^\.|^node:(?!timers)/.test(specifier)) continue;
        const name = packageOf(specifier);
        const places = PACKAGES[name] ?? [];
        const allowed =
          places.some((place) => file.path.startsWith(place)) && Object.hasOwn(dependencies, name);
        if (!allowed && !excepted(file.path, specifier))
          wrong.push(`${file.path}:${line} must not import ${specifier}`);
      }
    }
    assert.deepEqual(wrong, []);
  });

  it('keeps input and output out of the pure parts', () => {
    const wrong = files
      .filter(({ path }) => PURE.some((prefix) => path.startsWith(prefix)))
      .flatMap(({ path, imports }) =>
        imports
          .filter(({ specifier }) => IO_MODULES.test(specifier) && !excepted(path, specifier))
          .map(({ specifier, line }) => `${path}:${line} must not import ${specifier}`),
      );
    assert.deepEqual(wrong, []);
  });
});

describe('time and randomness', () => {
  it('come from core/clock and core/random only', () => {
    const wrong: string[] = [];
    for (const { path, code } of files) {
      if (BAN_FREE.includes(path)) continue;
      for (const [index, line] of code.split('\n').entries()) {
        for (const { name, pattern } of BANNED) {
          if (pattern.test(line) && !excepted(path, name)) wrong.push(`${path}:${index + 1} uses ${name}`);
        }
      }
    }
    assert.deepEqual(wrong, []);
  });
});

describe('exceptions', () => {
  it('are all needed and all have a reason', () => {
    // This test is the last of the file: the others have marked what they used.
    const idle = EXCEPTIONS.filter(({ file, what }) => !used.has(`${file}: ${what}`));
    assert.deepEqual(idle, []);
    assert.ok(EXCEPTIONS.every(({ reason }) => reason.length > 20));
  });
});

describe('the scanner of sources', () => {
  const scan = (source: string) => scanSource('x.ts', source);

  // biome-ignore-start lint/suspicious/noTemplateCurlyInString: it is source that is scanned
  it('finds every form of import and tells types apart', () => {
    const source = [
      "import { a } from './a.ts';",
      "import type { B } from './b.ts';",
      'import {\n  c,\n  type D,\n} from "./c.ts";',
      "export { e } from './e.ts';",
      "export type { F } from './f.ts';",
      "import './g.ts';",
      "const h = await import('./h.ts');",
      "const worker = new URL('./i.ts', import.meta.url);",
      "const data = new URL('../j.json', import.meta.url);",
      'const text = "import { k } from \'./k.ts\';";',
      "// import { l } from './l.ts';",
      "/*\nimport { m } from './m.ts';\n*/",
      "const regex = /'/; const n = 1 / 2; const o = import('./o.ts');",
      "const t = `${`'${'x'}`} import('./p.ts')`; const q = import('./q.ts');",
    ].join('\n');
    const found = scan(source).imports.map(
      ({ specifier, typeOnly }) => `${specifier}${typeOnly ? ' type' : ''}`,
    );
    const expected = [
      './a.ts',
      './b.ts type',
      './c.ts',
      './e.ts',
      './f.ts type',
      './g.ts',
      './h.ts',
      './i.ts',
    ];
    assert.deepEqual(found.sort(), [...expected, './o.ts', './q.ts'].sort());
  });

  it('sees code, and neither comments nor texts, line for line', () => {
    const { code } = scan(
      "const a = 'Date.now()'; // Date.now()\n/* Date.now()\n */ const b = `x${Date.now()}y`;\n",
    );
    const lines = code.split('\n');
    assert.ok(!lines[0].includes('Date.now'));
    assert.ok(!lines[1].includes('Date.now'));
    assert.ok(lines[2].includes('Date.now'));
    assert.equal(lines.length, 4);
  });
  // biome-ignore-end lint/suspicious/noTemplateCurlyInString: it is source that is scanned

  it('knows what the bans mean', () => {
    const hits = (source: string) =>
      BANNED.filter(({ pattern }) => pattern.test(source)).map(({ name }) => name);
    assert.deepEqual(hits('new Date()'), ['new Date()']);
    assert.deepEqual(hits('new Date(timestampMs)'), []);
    assert.deepEqual(hits('Date.parse(text)'), []);
    assert.deepEqual(hits('globalThis.setTimeout(f, 5)'), ['setTimeout']);
    assert.deepEqual(hits('crypto.randomUUID()'), ['crypto random']);
    assert.deepEqual(hits('random.unit()'), []);
  });
});
