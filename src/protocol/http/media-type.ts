/**
 * Content types of the HTTP door: which embedded format a body has and which one a reader asks for. The names
 * are Kafka REST Proxy v2's. Pure; any thread.
 */

/** How keys and values stand inside a JSON body: as JSON themselves, or as base64 strings. */
export type EmbeddedFormat = 'json' | 'binary';

export const JSON_V2 = 'application/vnd.kafka.json.v2+json';
export const BINARY_V2 = 'application/vnd.kafka.binary.v2+json';
/** Answers of the v2 endpoints that carry no records. */
export const KAFKA_V2 = 'application/vnd.kafka.v2+json';
export const PLAIN_JSON = 'application/json';

/** The type without its parameters, in lower case. */
function essence(header: string): string {
  const semicolon = header.indexOf(';');
  return (semicolon === -1 ? header : header.slice(0, semicolon)).trim().toLowerCase();
}

/** The format of a produce body; null: not one we take. */
export function bodyFormat(contentType: string | undefined): EmbeddedFormat | null {
  if (contentType === JSON_V2 || contentType === PLAIN_JSON) return 'json';
  if (contentType === BINARY_V2) return 'binary';
  if (contentType === undefined) return null;
  if (!charsetIsUtf8(contentType)) return null;
  const type = essence(contentType);
  if (type === JSON_V2 || type === PLAIN_JSON) return 'json';
  return type === BINARY_V2 ? 'binary' : null;
}

/** Whether a body of this type may be read as plain JSON (the requests of v3). */
export function isJsonBody(contentType: string | undefined): boolean {
  if (contentType === undefined) return false;
  const type = essence(contentType);
  return (type === PLAIN_JSON || type === KAFKA_V2) && charsetIsUtf8(contentType);
}

function charsetIsUtf8(contentType: string): boolean {
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(contentType);
  return charset === null || /^utf-?8$/i.test(charset[1]);
}

/**
 * The format in which a reader wants records, by its Accept header (RFC 9110 section 12.5.1): the type with
 * the greatest q that we have; json when it says nothing; null when it takes none of ours.
 */
export function acceptedFormat(accept: string | undefined): EmbeddedFormat | null {
  if (accept === undefined) return 'json';
  let best: EmbeddedFormat | null = null;
  let bestWeight = 0;
  for (const part of accept.split(',')) {
    const type = essence(part);
    const format: EmbeddedFormat | null =
      type === BINARY_V2
        ? 'binary'
        : type === JSON_V2 || type === PLAIN_JSON || type === '*/*' || type === 'application/*'
          ? 'json'
          : null;
    if (format === null) continue;
    const q = /;\s*q\s*=\s*([0-9.]+)/i.exec(part);
    // A concrete type goes before a wildcard of the same weight.
    const weight = (q === null ? 1 : Number(q[1])) * 2 - (type.includes('*') ? 0.0001 : 0);
    if (weight > bestWeight) {
      best = format;
      bestWeight = weight;
    }
  }
  return best;
}
