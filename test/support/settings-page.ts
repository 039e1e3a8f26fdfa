/**
 * docs/settings.md, generated from the table of settings. `npm run docs` writes the page; a unit test fails
 * when the page and the table differ. Does not own the table (src/settings.ts).
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SETTINGS, type SettingSpec } from '../../src/setting-table.ts';
import { defaultTextOf, environmentOf, flagOf, formatValue, settingNames } from '../../src/settings.ts';

export const SETTINGS_PAGE = fileURLToPath(new URL('../../docs/settings.md', import.meta.url));

function allowed(spec: SettingSpec): string {
  if (spec.type === 'flag') return 'true, false';
  if (spec.type === 'choice') return spec.choices.join(', ');
  if ('min' in spec) return `${formatValue(spec, spec.min)} to ${formatValue(spec, spec.max)}`;
  if (spec.type === 'address') return 'HOST:PORT';
  if (spec.type === 'url') return 'a URL';
  return ('patternText' in spec ? spec.patternText : undefined) ?? 'a text';
}

/** The whole page as it must stand in docs/. */
export function settingsPage(): string {
  const rows = settingNames().map((name) => {
    const spec: SettingSpec = SETTINGS[name];
    const cells = [`\`--${flagOf(name)}\``, `\`${environmentOf(name)}\``, defaultTextOf(spec), allowed(spec)];
    return `| ${[...cells, spec.help].join(' | ')} |`;
  });
  return `# Settings of \`streamhouse serve\`

<!-- Written by \`npm run docs\` from src/settings.ts; a test keeps both equal. -->

A setting is taken from its flag, else from the environment, else from a JSON file named by \`--config FILE\`
or \`STREAMHOUSE_CONFIG\`, else it has its default. In the file the keys are the flags without their dashes:

\`\`\`json
{ "listen": "127.0.0.1:8080", "flush-window": "100ms", "in-flight-bytes-max": "256MiB" }
\`\`\`

Sizes are written \`64MiB\`, \`512k\` or as plain bytes (a k is 1024, an M 1024 k, with or without the i);
durations \`100ms\`, \`5s\`, \`2m\`, \`1h\` or as plain ms. What is true or false is a flag without a value. A wrong value, an unknown key in the file and an unknown
\`STREAMHOUSE_...\` name each end the start with one line that names the source, and exit code 2. An empty value in
the environment counts as not set. Keys and passwords do not belong in settings files: the S3 keys are read
from where the AWS SDK looks for them (\`AWS_ACCESS_KEY_ID\` and \`AWS_SECRET_ACCESS_KEY\`, or its profile files).

| flag | environment | default | allowed | meaning |
|---|---|---|---|---|
${rows.join('\n')}

Names of the environment that are not settings of \`serve\`: \`STREAMHOUSE_CONFIG\` (the file), \`STREAMHOUSE_URL\`
(where client commands find the broker), \`STREAMHOUSE_DEBUG=1\` (errors with their stack) and
\`STREAMHOUSE_TEST_...\` (the project's tests).
`;
}

if (import.meta.main) writeFileSync(SETTINGS_PAGE, settingsPage());
