/**
 * docs/load-report.schema.json, written from the schema in src/load. `npm run docs` writes it; a unit test fails when
 * the file and the schema differ. Does not own the schema.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LoadReportSchema } from '../../src/load/report-schema.ts';

export const LOAD_SCHEMA_PAGE = fileURLToPath(new URL('../../docs/load-report.schema.json', import.meta.url));

export function loadSchemaPage(): string {
  return `${JSON.stringify(LoadReportSchema, null, 2)}\n`;
}

if (import.meta.main) writeFileSync(LOAD_SCHEMA_PAGE, loadSchemaPage());
