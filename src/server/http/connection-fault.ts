/**
 * The last words to a connection whose bytes could not be taken as a request: a whole HTTP answer by Node's
 * error code, after which the connection ends. Pure.
 */
import { PLAIN_JSON } from '../../protocol/http/media-type.ts';

interface Fault {
  status: number;
  reason: string;
  message: string;
}

const FAULTS: Readonly<Record<string, Fault>> = {
  HPE_HEADER_OVERFLOW: {
    status: 431,
    reason: 'Request Header Fields Too Large',
    message: 'the headers are over the limit',
  },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: {
    status: 413,
    reason: 'Content Too Large',
    message: 'the chunk extensions are over the limit',
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: 408,
    reason: 'Request Timeout',
    message: 'the request did not come in time',
  },
};
const NOT_HTTP: Fault = { status: 400, reason: 'Bad Request', message: 'not an HTTP/1.1 request' };

/** Status and JSON body of the answer. */
export function connectionFaultAnswer(code: string): { status: number; body: string } {
  const { status, message } = FAULTS[code] ?? NOT_HTTP;
  const body = JSON.stringify({
    error_code: status,
    message,
    code: 'malformed-request',
    outcome: 'none',
    retriable: false,
  });
  return { status, body };
}

/** The whole answer as it goes over the wire, where no request stands to be answered. */
export function connectionFaultText(code: string): string {
  const { status, reason } = FAULTS[code] ?? NOT_HTTP;
  const { body } = connectionFaultAnswer(code);
  return (
    `HTTP/1.1 ${status} ${reason}\r\nContent-Type: ${PLAIN_JSON}\r\nContent-Length: ${body.length}\r\n` +
    `Connection: close\r\n\r\n${body}`
  );
}
