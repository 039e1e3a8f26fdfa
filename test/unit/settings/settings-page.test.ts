/** docs/settings.md says what src/settings.ts holds. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { SETTINGS_PAGE, settingsPage } from '../../support/settings-page.ts';

it('docs/settings.md is what the table of settings gives (npm run docs writes it)', () => {
  assert.equal(readFileSync(SETTINGS_PAGE, 'utf8'), settingsPage());
});
