import { readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { compiled } from './compiled.ts';
import { tempDir } from './temp-dir.ts';

export type Operation =
  | 'write'
  | 'sync'
  | 'truncate'
  | 'open'
  | 'read'
  | 'lock'
  | 'map'
  | 'stat'
  | 'unlink'
  | 'mkdir'
  | 'malloc'
  | 'statfs'
  | 'clock';

export interface Fault {
  readonly operation: Operation;
  /** What the path ends with: `a.db-wal`. */
  readonly file?: string;
  /**
   * An errno by name; `SHORT`: the call moves no byte; `slowMs`: it succeeds, but takes longer; `percent`: less of the disk is
   * free with each call, of `statfs`; `hours`: so much the `clock` is ahead, or behind.
   */
  readonly error:
    | keyof typeof constants.errno
    | 'SHORT'
    | { readonly slowMs: number }
    | { readonly percent: number }
    | { readonly hours: number };
  /** Calls to let through first. */
  readonly skip?: number;
  /** Calls to fail; all, if not given. */
  readonly times?: number;
}

// As in fault-shim.c.
const RULES = 8;
const RULE_BYTES = 96;
const AT = { suffix: 16, error: 80, skip: 84, times: 88, hits: 92 } as const;

function codeOf(error: Fault['error']): number {
  if (error === 'SHORT') return 0;
  if (typeof error === 'string') return constants.errno[error];
  if ('hours' in error) return error.hours * 3_600;
  return 'slowMs' in error ? -error.slowMs : error.percent;
}

/** System calls of a child process that fail on purpose: start it with {@link env}, then arm as often as you like. */
export class FaultShim {
  readonly env: Readonly<Record<string, string>>;
  readonly #rules: string;

  /** Outside of a test it has to be told where it may put a file. */
  constructor(folder: string = tempDir()) {
    this.#rules = join(folder, 'rules');
    writeFileSync(this.#rules, Buffer.alloc(RULES * RULE_BYTES));
    this.env = { LD_PRELOAD: compiled('fault-shim'), FAULT_SHIM_RULES: this.#rules };
  }

  /** From now on these calls fail, and no others. */
  arm(...faults: readonly Fault[]): void {
    const bytes = Buffer.alloc(RULES * RULE_BYTES);
    if (faults.length > RULES) throw new Error(`the shim has room for ${RULES} rules`);
    for (const [i, { operation, file = '', error, skip = 0, times = -1 }] of faults.entries()) {
      const at = i * RULE_BYTES;
      bytes.write(operation, at, 15);
      bytes.write(file, at + AT.suffix, 63);
      bytes.writeInt32LE(codeOf(error), at + AT.error);
      bytes.writeInt32LE(skip, at + AT.skip);
      bytes.writeInt32LE(times, at + AT.times);
    }
    // Written over, not anew: the process has it mapped.
    writeFileSync(this.#rules, bytes, { flag: 'r+' });
  }

  /** How often each of the armed faults has come true. */
  hits(): number[] {
    const bytes = readFileSync(this.#rules);
    return Array.from({ length: RULES }, (_, i) => bytes.readInt32LE(i * RULE_BYTES + AT.hits));
  }
}
