import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { Machine } from '../../dist/db/open.js';

/** Reader threads whose answers can be held up on their way: what they have read is old by the time it arrives. */
export class HeldReads {
  #held: (() => void)[] | undefined;
  /** Answers that are held up. */
  get waiting(): number {
    return this.#held?.length ?? 0;
  }

  hold(): void {
    this.#held ??= [];
  }

  /** Lets the answers that wait arrive, in their order; with `goOn`, the later ones too. */
  release(goOn = true): void {
    const held = this.#held ?? [];
    this.#held = goOn ? undefined : [];
    for (const arrive of held) arrive();
  }

  readonly spawn: NonNullable<Machine['spawn']> = (entry, port) => {
    const isReader = entry.pathname.endsWith('reader-thread.js');
    const far = isReader ? this.#between(port) : port;
    return new Worker(entry, { workerData: far, transferList: [far], execArgv: [] });
  };

  #between(port: MessagePort): MessagePort {
    const { port1, port2 } = new MessageChannel();
    port.on('message', (message) => port1.postMessage(message));
    port1.on('message', (message) => {
      const arrive = () => port.postMessage(message);
      if (this.#held === undefined) arrive();
      else this.#held.push(arrive);
    });
    port.on('close', () => port1.close());
    port1.on('close', () => port.close());
    port.unref();
    port1.unref();
    return port2;
  }
}
