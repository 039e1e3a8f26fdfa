/**
 * How the S3 test server reads and writes: refusals as XML, listings as XML, aws-chunked bodies. Owns these
 * formats only; the server is s3-server.ts. Pure.
 */
import type { S3Object, S3Request } from './s3-server.ts';

/** A request that the server answers with an error. */
export class S3Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function escapeXml(text: string): string {
  return text.replace(/[<>&'"\r]/g, (char) => `&#${char.charCodeAt(0)};`);
}

export function errorXml(error: S3Refusal): Buffer {
  const inner = `<Code>${error.code}</Code><Message>${escapeXml(error.message)}</Message>`;
  return Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<Error>${inner}<RequestId>1</RequestId></Error>`,
  );
}

/** S3's encoding-type=url: as in forms, a space is a plus. Slashes stay. */
function urlEncoded(key: string): string {
  return encodeURIComponent(key).replaceAll('%20', '+').replaceAll('%2F', '/');
}

export function listXml(objects: ReadonlyMap<string, S3Object>, call: S3Request, url: URL): Buffer {
  const query = url.searchParams;
  const prefix = query.get('prefix') ?? '';
  const token = query.get('continuation-token');
  const after = token === null ? query.get('start-after') : Buffer.from(token, 'base64').toString('utf8');
  const keysMax = Math.min(Number(query.get('max-keys') ?? 1000), 1000);
  if (!Number.isInteger(keysMax) || keysMax < 0) throw new S3Refusal(400, 'InvalidArgument', 'max-keys');
  const encode = query.get('encoding-type') === 'url' ? urlEncoded : escapeXml;
  const keys = [...objects.keys()]
    .map((key) => ({ key, utf8: Buffer.from(key) }))
    .filter((each) => each.key.startsWith(prefix))
    .filter((each) => after === null || Buffer.compare(each.utf8, Buffer.from(after)) > 0)
    .sort((a, b) => Buffer.compare(a.utf8, b.utf8))
    .map((each) => each.key);
  const page = keys.slice(0, keysMax);
  const truncated = keys.length > page.length && page.length > 0;
  const parts = [
    `<Name>${escapeXml(call.bucket)}</Name><Prefix>${encode(prefix)}</Prefix>`,
    `<KeyCount>${page.length}</KeyCount><MaxKeys>${keysMax}</MaxKeys><IsTruncated>${truncated}</IsTruncated>`,
  ];
  if (query.get('encoding-type') === 'url') parts.push('<EncodingType>url</EncodingType>');
  if (truncated) {
    const next = Buffer.from(page[page.length - 1]).toString('base64');
    parts.push(`<NextContinuationToken>${next}</NextContinuationToken>`);
  }
  for (const key of page) {
    const { bytes, etag, modifiedMs } = objects.get(key)!;
    const modified = new Date(modifiedMs).toISOString();
    parts.push(
      `<Contents><Key>${encode(key)}</Key><LastModified>${modified}</LastModified>`,
      `<ETag>${escapeXml(etag)}</ETag><Size>${bytes.length}</Size>`,
      '<StorageClass>STANDARD</StorageClass></Contents>',
    );
  }
  const inner = parts.join('');
  const namespace = 'http://s3.amazonaws.com/doc/2006-03-01/';
  return Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="${namespace}">${inner}</ListBucketResult>`,
  );
}

/** The data of an aws-chunked body: `HEX[;extensions] CRLF data CRLF` until a chunk of size 0. */
export function decodeAwsChunked(raw: Buffer): Buffer {
  const pieces: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = raw.indexOf('\r\n', at);
    if (lineEnd < 0) throw new S3Refusal(400, 'IncompleteBody', 'a chunk without its size');
    const size = Number.parseInt(raw.toString('latin1', at, lineEnd), 16);
    if (!Number.isInteger(size)) throw new S3Refusal(400, 'InvalidRequest', 'a chunk size that is no number');
    if (size === 0) return Buffer.concat(pieces);
    const start = lineEnd + 2;
    if (start + size + 2 > raw.length) throw new S3Refusal(400, 'IncompleteBody', 'a chunk is cut short');
    pieces.push(raw.subarray(start, start + size));
    at = start + size + 2;
  }
}
