import { type ResourceLimits, Worker } from 'node:worker_threads';
import { systemClock } from '../../dist/base/clock.js';
import { nodeFileSystem } from '../../dist/base/node-file-system.js';
import { systemRandom } from '../../dist/base/random.js';
import type { Machine } from '../../dist/db/open.js';

/** This machine, with parts of it replaced. */
export function machine(parts: Partial<Machine> = {}): Machine {
  return { clock: systemClock, random: systemRandom, fileSystem: nodeFileSystem, ...parts };
}

/** Starts threads as usual, and keeps hold of them. */
export class Threads {
  readonly writers: Worker[] = [];
  readonly readers: Worker[] = [];
  /** Called with each new writer thread. */
  onWriter: (worker: Worker) => void = () => {};
  readonly #limits: ResourceLimits;

  constructor(limits: ResourceLimits = {}) {
    this.#limits = limits;
  }

  readonly spawn: NonNullable<Machine['spawn']> = (entry, port) => {
    const worker = new Worker(entry, {
      workerData: port,
      transferList: [port],
      execArgv: [],
      resourceLimits: this.#limits,
    });
    if (entry.pathname.endsWith('writer-thread.js')) {
      this.writers.push(worker);
      this.onWriter(worker);
    } else {
      this.readers.push(worker);
    }
    return worker;
  };

  get writer(): Worker {
    return this.writers.at(-1) as Worker;
  }
}
