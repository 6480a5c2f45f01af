import * as fc from 'fast-check';
import type { Clock } from '../../dist/base/clock.js';
import { DiskFaults, type Fault } from './disk-faults.ts';
import { errorOf, type MemoryFileSystem } from './memory-file-system.ts';

export const FAULT_OPERATIONS = [
  'create',
  'write',
  'datasync',
  'syncDirectory',
  'truncate',
  'unlink',
  'close',
] as const;

export const fault: fc.Arbitrary<Fault> = fc.record({
  operation: fc.constantFrom(...FAULT_OPERATIONS),
  nth: fc.nat(6),
  code: fc.constantFrom('EIO', 'ENOSPC', 'EMFILE'),
  // Room that never comes back is waited for without end: only a broken disk is broken for good here.
  sticky: fc.constant(false),
});

/** Lets the scheduler decide when each operation on the disk happens, and makes some of them fail. */
export function schedule(
  scheduler: fc.Scheduler,
  fileSystem: MemoryFileSystem,
  faults: readonly Fault[],
  onFault: (fault: Fault) => void,
): void {
  const wrong = new DiskFaults(faults);
  fileSystem.before = async (operation) => {
    await scheduler.schedule(Promise.resolve(), operation.name);
    const found = wrong.due(operation);
    if (found === undefined) return;
    onFault(found);
    throw errorOf(found.code, operation.path);
  };
}

/** A clock whose timers go off when the scheduler says so. */
export function scheduledClock(scheduler: fc.Scheduler): Clock {
  let elapsed = 0;
  return {
    now: () => 1_700_000_000_000,
    elapsed: () => elapsed++,
    after(_, run) {
      let live = true;
      scheduler.schedule(Promise.resolve(), 'timer').then(
        () => {
          if (live) run();
        },
        () => {},
      );
      return {
        cancel: () => {
          live = false;
        },
      };
    },
  };
}
