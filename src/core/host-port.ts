/**
 * HOST:PORT, as brokers listen at and advertise. Owns: what is one. Pure; any thread.
 */

export interface HostPort {
  /** A name or an address; of IPv6 without the brackets. */
  host: string;
  port: number;
}

/** The two parts of HOST:PORT or [IPV6]:PORT; null if it is not that. */
export function splitAddress(address: string): HostPort | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(address);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65_535 ? null : { host: match[1] ?? match[2], port };
}

/** The other way round. */
export function joinAddress({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
