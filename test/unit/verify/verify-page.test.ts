/** docs/verify.md explains every kind of finding and of note, and no others. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { FINDING_KINDS, NOTE_KINDS } from '../../../src/verify/finding.ts';

it('the page on verify has every kind', () => {
  const page = readFileSync(new URL('../../../docs/verify.md', import.meta.url), 'utf8');
  const explained = [...page.matchAll(/^\| `([a-z][a-z-]*)` \|/gm)].map(([, kind]) => kind);
  assert.deepEqual(explained.sort(), [...Object.keys(FINDING_KINDS), ...Object.keys(NOTE_KINDS)].sort());
});
