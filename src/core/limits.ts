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

// Between brokers.

/**
 * Longest that a request waits for a partition whose leader is not known, or being changed, ms. A handover takes far
 * less; a broker that died is found dead only later, and who asks then had better try again.
 */
export const PLACE_WAIT_MS_MAX = 5000;

/** Requests that wait for a leader at a time. */
export const PLACE_WAITS_MAX = 10_000;

/** Between two looks at the leases while anybody waits for a leader, ms; all who wait share them. */
export const PLACE_LOOK_MS = 100;

/** Time for a connection to another broker, ms: in one network it takes a few. */
export const PEER_CONNECT_MS_MAX = 2000;

/** Time for an answer to a notice or a question of one broker to another, ms. */
export const PEER_DUTY_MS_MAX = 5000;

/** Time for another broker to append a topic's end to its shards, ms. */
export const PEER_END_TOPIC_MS_MAX = 15_000;

/** An idle connection to another broker is closed after this time, ms; well before the door at its other end does. */
export const PEER_KEEP_ALIVE_MS = 30_000;

/**
 * Messages of appends that one other broker may be answering at a time, each on a connection of its own. One begins
 * every FORWARD_GATHER_MS at most and is answered after the window, 100 to 200 ms.
 */
export const FORWARD_STREAMS_MAX = 64;

/** Between two messages of appends to one other broker, ms; what comes meanwhile goes into the second. */
export const FORWARD_GATHER_MS = 5;

/** A message of appends is closed before it has more than so many bytes; a larger append goes by itself. */
export const FORWARD_MESSAGE_BYTES = 1024 * 1024;

/** Largest message of appends that a broker takes from another, bytes: the largest append that any setting allows. */
export const FORWARD_BODY_BYTES_MAX = 320 * 1024 * 1024;

/** Appends that wait to be sent to a broker which does not take its messages are refused after this time, ms. */
export const FORWARD_QUEUE_MS_MAX = 5000;

/** Reads forwarded to one other broker at a time, long polls included; each has a connection. */
export const FORWARD_READS_MAX = 1024;

/** Time for the answer of a forwarded read, on top of how long it may wait for records, ms. */
export const FORWARD_READ_MS_MAX = 10_000;

/** Connections to one other broker for notices and questions. */
export const PEER_DUTY_CONNECTIONS_MAX = 4;

/** Connections to a broker that was not asked anything for so long are closed, ms. */
export const PEER_IDLE_MS_MAX = 120_000;

/** Largest answer to a question of one broker to another, bytes: the shards that it holds. */
export const PEER_ANSWER_BYTES_MAX = 4 * 1024 * 1024;
