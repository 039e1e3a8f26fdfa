/**
 * Every bound of the broker that is not a setting, with its unit and the reason for the number. Settings with
 * defaults live in settings.ts; formats' own bounds beside their codec.
 */

/** Largest record value plus key, bytes; Kafka's default of message.max.bytes rounded to 1 MiB. */
export const RECORD_BYTES_MAX_DEFAULT = 1024 * 1024;

/** Largest HTTP request body, bytes: a full batch of largest records and its JSON or base64 overhead. */
export const BODY_BYTES_MAX_DEFAULT = 16 * 1024 * 1024;

/** Records of one produce request; bounds the work between two turns of the event loop. */
export const RECORDS_PER_REQUEST_MAX = 100_000;

/** Kafka's rule for topic names: at most 249 characters of [a-zA-Z0-9._-], not '.' or '..'. */
export const TOPIC_NAME_CHARACTERS_MAX = 249;

/** Largest answer of one fetch, bytes. */
export const FETCH_BYTES_MAX = 50 * 1024 * 1024;

/** Longest long poll, ms. */
export const FETCH_WAIT_MS_MAX = 60_000;

/** Connections that one door keeps open. */
export const CONNECTIONS_MAX = 10_000;
