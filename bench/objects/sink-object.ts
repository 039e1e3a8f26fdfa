/** The object that ranges are read of: larger than the largest of them. Owns its size only. */
export const SINK_OBJECT_BYTES = 16 * 1024 * 1024;
