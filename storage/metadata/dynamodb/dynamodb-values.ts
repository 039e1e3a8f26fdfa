/**
 * Attribute values and expressions as the rest of the backend writes them: plain texts, numbers and bytes in, a
 * reader that checks what comes out. Owns: that translation. Does not own: which attributes there are
 * (dynamodb-items). Items come from a database: what does not read is 'corrupt-store'. Pure; any thread.
 */
import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import { StreamHouseError } from '../../../src/core/errors.ts';

export type Item = Record<string, AttributeValue>;
export type Value = string | number | Uint8Array;
/** Attributes by name; those that are undefined or null are left out. */
export type Attributes = Record<string, Value | null | undefined>;

/** An item's key in the one table. */
export interface ItemKey {
  pk: string;
  sk: string;
}

export function toValue(value: Value): AttributeValue {
  if (typeof value === 'string') return { S: value };
  return typeof value === 'number' ? { N: String(value) } : { B: value };
}

export function toItem(key: ItemKey, attributes: Attributes = {}): Item {
  const item: Item = { pk: { S: key.pk }, sk: { S: key.sk } };
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) item[name] = toValue(value);
  }
  return item;
}

export function keyItem({ pk, sk }: ItemKey): Item {
  return { pk: { S: pk }, sk: { S: sk } };
}

export function keyOf(item: Item): ItemKey {
  const reader = new ItemReader(item);
  return { pk: reader.text('pk'), sk: reader.text('sk') };
}

/**
 * `#name` in an expression is the attribute of that name: DynamoDB reserves several hundred words, so that no
 * attribute is ever named outright.
 */
export function namesIn(...expressions: (string | undefined)[]): Record<string, string> {
  const names: Record<string, string> = {};
  for (const expression of expressions) {
    for (const [placeholder, name] of expression?.matchAll(/#(\w+)/g) ?? []) names[placeholder] = name;
  }
  return names;
}

/** Values by the name after their colon; undefined where there are none, as the service wants it. */
export function valuesOf(values: Record<string, Value>): Item | undefined {
  const entries = Object.entries(values);
  if (entries.length === 0) return undefined;
  return Object.fromEntries(entries.map(([name, value]) => [`:${name}`, toValue(value)]));
}

/** Reads an item's attributes. */
export class ItemReader {
  readonly #item: Item;

  constructor(item: Item) {
    this.#item = item;
  }

  /** Throws 'corrupt-store', naming the item. */
  fail(what: string): never {
    const { pk, sk } = this.#item;
    throw new StreamHouseError('corrupt-store', `item (${pk?.S}, ${sk?.S}): ${what}`);
  }

  has(name: string): boolean {
    return this.#item[name] !== undefined;
  }

  text(name: string): string {
    const value = this.#item[name]?.S;
    return value ?? this.fail(`${name} is no text`);
  }

  textOrNull(name: string): string | null {
    return this.has(name) ? this.text(name) : null;
  }

  /** A safe integer from 0. */
  number(name: string): number {
    const text = this.#item[name]?.N;
    const value = text === undefined || text === '' ? Number.NaN : Number(text);
    return Number.isSafeInteger(value) && value >= 0 ? value : this.fail(`${name} is no integer: ${text}`);
  }

  /** A sort key that is one number (dynamodb-items). */
  sortNumber(): number {
    const text = this.text('sk');
    return /^\d{16}$/.test(text) ? Number(text) : this.fail('its sort key is no number');
  }

  numberOrNull(name: string): number | null {
    return this.has(name) ? this.number(name) : null;
  }

  /** Bytes in memory of their own. */
  bytes(name: string): Uint8Array {
    const value = this.#item[name]?.B;
    if (value === undefined) this.fail(`${name} is no bytes`);
    return ownBytes(value);
  }

  bytesOrNull(name: string): Uint8Array | null {
    return this.has(name) ? this.bytes(name) : null;
  }

  /** A JSON object of texts. */
  texts(name: string): Record<string, string> {
    let value: unknown;
    try {
      value = JSON.parse(this.text(name));
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.fail(`${name} is no JSON object`);
    return value as Record<string, string>;
  }
}

/** The SDK decodes small values into a pool that they share: what is handed out must be able to move. */
function ownBytes(value: Uint8Array): Uint8Array {
  const isWhole = value.byteOffset === 0 && value.byteLength === value.buffer.byteLength;
  if (isWhole) return new Uint8Array(value.buffer);
  return Uint8Array.from(value);
}
