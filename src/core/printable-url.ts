/**
 * URLs as logs and messages may show them. Owns: what of a URL may be a secret. Pure; any thread.
 */

/** A URL with whatever may be a secret replaced by `***`. */
export function withoutSecrets(url: string): string {
  return url
    .replace(/\/\/[^/?#]*@/, '//***@')
    .replace(/([?&][^=&#]*(?:pass|secret|key|token|credential)[^=&#]*=)[^&#]*/gi, '$1***');
}
