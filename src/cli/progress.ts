import { SingleBar } from 'cli-progress';
import type { CopyProgress } from '../store/store.ts';

const LINE_MS = 5_000;
const MIB = 1024 * 1024;

/** Shows how far it is, on standard error: a bar on a terminal, now and then a line elsewhere. */
export interface Progress {
  add(bytes: number): void;
  stop(): void;
}

/** `total` is `undefined` where nobody knows. */
export function startProgress(total: number | undefined): Progress {
  return process.stderr.isTTY && total !== undefined ? startBar(total) : startLines(total);
}

function startBar(total: number): Progress {
  const bar = new SingleBar({
    format: ' {bar} {percentage}% | {done} of {size} MiB | {eta_formatted} left',
    stream: process.stderr,
    hideCursor: true,
  });
  let bytes = 0;
  bar.start(total, 0, { done: '0.0', size: inMiB(total) });
  return {
    add(count) {
      bytes += count;
      bar.update(bytes, { done: inMiB(bytes) });
    },
    stop: () => bar.stop(),
  };
}

function startLines(total: number | undefined): Progress {
  let bytes = 0;
  const timer = setInterval(() => {
    const of = total === undefined ? '' : ` of ${inMiB(total)}`;
    console.error(`${inMiB(bytes)}${of} MiB read`);
  }, LINE_MS).unref();
  return {
    add(count) {
      bytes += count;
    },
    stop: () => clearInterval(timer),
  };
}

/** How far a run over entries of the dead-letter queue is: as {@link Progress}, whose size is known as it begins. */
export interface EntryProgress {
  update(progress: { readonly done: number; readonly total: number }): void;
  stop(): void;
}

export function startEntryProgress(): EntryProgress {
  return process.stderr.isTTY ? startEntryBar() : startEntryLines();
}

function startEntryBar(): EntryProgress {
  const bar = new SingleBar({
    format: ' {bar} {percentage}% | {value} of {total} entries | {eta_formatted} left',
    stream: process.stderr,
    hideCursor: true,
  });
  let begun = false;
  return {
    update({ done, total }) {
      if (!begun) bar.start(total, 0);
      begun = true;
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

function startEntryLines(): EntryProgress {
  let text = 'waiting for the database';
  const timer = setInterval(() => console.error(text), LINE_MS).unref();
  return {
    update({ done, total }) {
      text = `${done} of ${total} entries done`;
    },
    stop: () => clearInterval(timer),
  };
}

/** How far a copy of a database is. */
export interface CopyProgressBar {
  update(progress: CopyProgress): void;
  stop(): void;
}

export function startCopyProgress(): CopyProgressBar {
  return process.stderr.isTTY ? startCopyBar() : startCopyLines();
}

function startCopyBar(): CopyProgressBar {
  const bar = new SingleBar({
    format: ' {phase} {bar} {percentage}% | {done} of {size} MiB',
    stream: process.stderr,
    hideCursor: true,
  });
  let begun = false;
  return {
    update({ phase, bytes, totalBytes }) {
      const shown = { phase: PHASES[phase], done: inMiB(bytes), size: inMiB(totalBytes) };
      if (!begun) bar.start(totalBytes, 0, shown);
      begun = true;
      bar.update(bytes, shown);
    },
    stop: () => bar.stop(),
  };
}

function startCopyLines(): CopyProgressBar {
  let text = 'waiting for the database';
  const timer = setInterval(() => console.error(text), LINE_MS).unref();
  return {
    update({ phase, bytes, totalBytes }) {
      text = `${PHASES[phase]}: ${inMiB(bytes)} of ${inMiB(totalBytes)} MiB`;
    },
    stop: () => clearInterval(timer),
  };
}

const PHASES: Readonly<Record<CopyProgress['phase'], string>> = { copy: 'copying', check: 'checking' };

export function inMiB(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}
