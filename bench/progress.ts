import { SingleBar } from 'cli-progress';

/** How far a run is, on standard error: a bar on a terminal, a line for each step elsewhere. */
export interface Progress {
  step(what: string): void;
  stop(): void;
}

export function startProgress(steps: number): Progress {
  return process.stderr.isTTY ? startBar(steps) : startLines(steps);
}

function startBar(steps: number): Progress {
  const bar = new SingleBar({
    format: ' {bar} {percentage}% | {what}',
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
  });
  let done = 0;
  bar.start(steps, 0, { what: '' });
  return {
    step: (what) => bar.update(done++, { what }),
    stop: () => bar.stop(),
  };
}

function startLines(steps: number): Progress {
  let done = 0;
  return {
    step: (what) => console.error(`${++done}/${steps} ${what}`),
    stop() {},
  };
}
