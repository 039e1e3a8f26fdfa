/** Reads values out of Prometheus text, as /metrics answers it. Owns nothing else. Pure. */

/** Sum over all label sets of a metric whose labels contain `labels`; null if there is none such. */
export function metricSum(text: string, name: string, labels: Record<string, string> = {}): number | null {
  let sum: number | null = null;
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (match === null || match[1] !== name) continue;
    const set = match[2] ?? '';
    if (!Object.entries(labels).every(([label, value]) => set.includes(`${label}="${value}"`))) continue;
    sum = (sum ?? 0) + Number(match[3]);
  }
  return sum;
}

/** Every value that a label of a metric has, sorted. */
export function labelValues(text: string, name: string, label: string): string[] {
  const values = new Set<string>();
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${name}{`)) continue;
    const value = new RegExp(`[{,]${label}="([^"]*)"`).exec(line)?.[1];
    if (value !== undefined) values.add(value);
  }
  return [...values].sort();
}
