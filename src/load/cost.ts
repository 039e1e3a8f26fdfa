/**
 * What a run would cost at list prices. Owns: the prices' names, defaults and arithmetic. Pure.
 *
 * The defaults are list prices of AWS in us-east-1 (N. Virginia), in USD, without free tiers, discounts or taxes.
 * Checked on 2026-11-25:
 *   put, gb-month           S3 Standard: "$0.005 per 1,000 PUT, COPY, POST, or LIST requests", "$0.023 per GB - first
 *                           50 TB / month of storage used"; AWS price list AmazonS3, us-east-1, as of 2026-09-28
 *   cpu-hour                Fargate, Linux on x86, a vCPU without its memory: $0.04048 (aws.amazon.com/fargate/pricing,
 *                           as factualminds.com quotes it on 2026-06-17)
 *   write-unit, read-unit   DynamoDB Standard, on demand: $0.625 and $0.125 a million since November 2024
 *                           (aws.amazon.com/dynamodb/pricing/on-demand, as airbyte.com quotes it on 2025-07-21)
 * They change: give your own.
 */
import type { LoadReport } from './report-schema.ts';

/** Name, default, what it is a price of. */
export const PRICES = {
  put: { default: 0.005, of: '1000 PUTs' },
  'gb-month': { default: 0.023, of: 'a GB (2^30 bytes) stored for a month' },
  'cpu-hour': { default: 0.04048, of: 'an hour of one virtual CPU' },
  'write-unit': { default: 0.625, of: 'a million write request units (DynamoDB)' },
  'read-unit': { default: 0.125, of: 'a million read request units (DynamoDB)' },
} as const;

export type PriceName = keyof typeof PRICES;
export type Prices = Record<PriceName, number>;

export function defaultPrices(): Prices {
  return Object.fromEntries(Object.entries(PRICES).map(([name, price]) => [name, price.default])) as Prices;
}

/** 'put=0.005,cpu-hour=0.03' over the defaults; null for what is none. */
export function parsePrices(text: string): Prices | null {
  const prices = defaultPrices();
  for (const part of text.split(',')) {
    const [name, value, ...rest] = part.split('=');
    const number = Number(value);
    if (!Object.hasOwn(PRICES, name) || rest.length > 0 || value === '' || !(number >= 0 && number < 1e6))
      return null;
    prices[name as PriceName] = number;
  }
  return prices;
}

export interface CostInput {
  acked: number;
  puts: number;
  objectBytes: number;
  cpuS: number;
  writeUnits: number;
  readUnits: number;
}

export function costOf(input: CostInput, prices: Prices): LoadReport['cost'] {
  const perMillion = input.acked === 0 ? 0 : 1e6 / input.acked;
  const parts = {
    put: (input.puts / 1000) * prices.put,
    'gb-month': (input.objectBytes / 2 ** 30) * prices['gb-month'],
    'cpu-hour': (input.cpuS / 3600) * prices['cpu-hour'],
    'write-unit': (input.writeUnits / 1e6) * prices['write-unit'],
    'read-unit': (input.readUnits / 1e6) * prices['read-unit'],
  };
  const rounded = (usd: number) => Number((usd * perMillion).toPrecision(4));
  return {
    per_million_records: rounded(Object.values(parts).reduce((sum, usd) => sum + usd, 0)),
    parts: Object.fromEntries(Object.entries(parts).map(([name, usd]) => [name, rounded(usd)])),
    prices,
    note: 'an estimate: requests, one month of storage, CPU time used; no reads, no traffic, no fixed cost of a database',
  };
}
