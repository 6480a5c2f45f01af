/** Has the contestants of a case take turns, each in a process of its own. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Answer } from './child.ts';
import type { Case, Contestant, Figures } from './contest.ts';

export interface Measured {
  readonly contestant: Contestant;
  /** In the order in which they were run: the same place is the same round for every contestant of the case. */
  readonly rounds: readonly Figures[];
}

export interface RaceOptions {
  /** Arguments for the Node.js of each child, such as `--cpu-prof`. */
  readonly nodeOptions: readonly string[];
  /** Before each part of the work. */
  onStep(what: string): void;
}

/** How many steps {@link race} tells of. */
export function stepsOf({ contestants, rounds, cold = false }: Case): number {
  return contestants.length * (rounds + (cold ? 1 : 2));
}

export async function race(each: Case, { nodeOptions, onStep }: RaceOptions): Promise<readonly Measured[]> {
  const racers: Racer[] = [];
  try {
    for (const contestant of each.contestants) {
      onStep(`${contestant.name} prepares`);
      const racer = new Racer(each, contestant, nodeOptions);
      racers.push(racer);
      await racer.ready();
    }
    for (let round = each.cold ? 1 : 0; round <= each.rounds; round++) {
      // Who goes first finds the disk in another state.
      for (const racer of round % 2 === 0 ? racers : racers.toReversed()) {
        onStep(`${round === 0 ? 'warm-up' : `round ${round} of ${each.rounds}`}, ${racer.contestant.name}`);
        const figures = await racer.round();
        if (round > 0) racer.rounds.push(figures);
      }
    }
    return racers;
  } finally {
    for (const racer of racers) await racer.end();
  }
}

class Racer implements Measured {
  readonly contestant: Contestant;
  readonly rounds: Figures[] = [];
  readonly #name: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  constructor(each: Case, contestant: Contestant, nodeOptions: readonly string[]) {
    this.contestant = contestant;
    this.#name = `${each.name}, ${contestant.name}`;
    this.#child = fork(new URL('./child.js', import.meta.url), [each.name, contestant.name, this.#folder], {
      execArgv: ['--expose-gc', ...nodeOptions],
    });
    this.#ended = once(this.#child, 'exit');
    this.#ended.catch(() => {});
  }

  async ready(): Promise<void> {
    await this.#answer();
  }

  async round(): Promise<Figures> {
    this.#child.send('round');
    const answer = await this.#answer();
    return 'figures' in answer ? answer.figures : {};
  }

  async #answer(): Promise<Answer> {
    const dead = this.#ended.then(() => {
      throw new Error(`${this.#name}: its process ended with ${this.#child.signalCode ?? this.#child.exitCode}`);
    });
    const [answer] = (await Promise.race([once(this.#child, 'message'), dead])) as [Answer];
    if ('failed' in answer) throw new Error(`${this.#name}: ${answer.failed}`);
    return answer;
  }

  async end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    await this.#ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
