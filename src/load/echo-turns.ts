/**
 * A bare echo server under the same load as the broker, in turns of a few seconds before and after it: what the
 * machine and the generators could do at all. Owns: the server's process and the mean of the turns. Main thread.
 */
import type { Clock } from '../core/clock.ts';
import { LoadChild } from './child-process.ts';
import type { FromEcho, ToEcho } from './echo-server.ts';
import { GeneratorFleet } from './generator-fleet.ts';
import { Latencies } from './latency.ts';
import type { LoadPlan, PlannedPhase } from './load-plan.ts';

const TURN_MS = 5000;
/** More than any server answers in a turn. */
const TURN_RECORDS_MAX = 50_000_000;

export class EchoTurns {
  readonly #plan: LoadPlan;
  readonly #clock: Clock;
  readonly latencies = new Latencies();
  #acked = 0;
  #tookMs = 0;

  constructor(plan: LoadPlan, clock: Clock) {
    const phase: PlannedPhase = {
      name: 'echo',
      pace: { kind: 'closed' },
      records: TURN_RECORDS_MAX,
      durationMs: TURN_MS,
      readers: null,
      churn: false,
      afterRestart: false,
      isMeasured: true,
    };
    this.#plan = { ...plan, warmUpMs: 1000, phases: [phase], records: TURN_RECORDS_MAX };
    this.#clock = clock;
  }

  /** Records a second over all turns; null when there was none. */
  get ratePerS(): number | null {
    return this.#tookMs === 0 ? null : (this.#acked * 1000) / this.#tookMs;
  }

  async turn(): Promise<void> {
    const server = new LoadChild<ToEcho, FromEcho>('echo-server', () => undefined);
    try {
      const { port } = await server.next('listening');
      const fleet = await GeneratorFleet.start({
        urls: [`http://127.0.0.1:${port}`],
        topic: 'echo',
        plan: this.#plan,
        scratch: null,
        readsOffsets: false,
        retries: false,
        clock: this.#clock,
        heard: () => undefined,
      });
      try {
        const { measured } = await fleet.runPhase(this.#plan.phases[0], this.#clock.wallMs());
        this.latencies.merge(measured.latencies);
        this.#acked += measured.acked;
        this.#tookMs += measured.tookMs;
      } finally {
        await fleet.close();
      }
    } finally {
      await server.kill();
    }
  }
}
