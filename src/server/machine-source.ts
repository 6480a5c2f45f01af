import { availableParallelism, type CpuInfo, cpus, freemem, loadavg, totalmem } from 'node:os';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { codeOf, SluiceError } from '../base/errors.ts';
import type { Database } from '../db/database.ts';
import type { Rows } from '../db/rows.ts';
import type { Tables } from './tables.ts';

/** One row of the table `machine`. */
interface MachineRow {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly load1: number;
  readonly memory_used_bytes: number;
  readonly memory_total_bytes: number;
  /** By how much the event loop of this process was late, since the row before. */
  readonly loop_delay_p50_ms: number;
  readonly loop_delay_p99_ms: number;
  readonly loop_delay_max_ms: number;
  readonly process_rss_bytes: number;
  /** CPU time of this process by wall-clock time: 1 is one core. */
  readonly process_cpu: number;
}

/** One row of the table `cpu`: the share of the time in which a core was busy, since the row before. */
interface CpuRow {
  readonly at: number;
  readonly core: number;
  readonly busy: number;
}

const LOOP_RESOLUTION_MS = 10;

/** A day at four samples a second. */
const SAMPLES_KEPT = 345_600;
const SAMPLES_BETWEEN_CUTS = 2_400;

/**
 * Writes how this machine is doing into the tables `machine` and `cpu`, several times a second, and keeps the newest 345,600
 * samples. When staging is full a sample is left out.
 */
export class MachineSource {
  readonly #db: Database;
  readonly #machine: Rows<MachineRow>;
  readonly #cpu: Rows<CpuRow>;
  readonly #loop: IntervalHistogram;
  readonly #timer: NodeJS.Timeout;
  #cores: readonly CpuInfo[];
  #process: { readonly at: number; readonly cpuMicros: number };
  #samples = 0;

  private constructor(db: Database, intervalMs: number) {
    this.#db = db;
    this.#machine = db.rows<MachineRow>('machine', {
      columns: {
        at: 'integer',
        load1: 'real',
        memory_used_bytes: 'integer',
        memory_total_bytes: 'integer',
        loop_delay_p50_ms: 'real',
        loop_delay_p99_ms: 'real',
        loop_delay_max_ms: 'real',
        process_rss_bytes: 'integer',
        process_cpu: 'real',
      },
      onNewColumn: 'add',
    });
    this.#cpu = db.rows<CpuRow>('cpu', {
      columns: { at: 'integer', core: 'integer', busy: 'real' },
      onNewColumn: 'add',
    });
    this.#loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
    this.#loop.enable();
    this.#cores = cpus();
    this.#process = { at: performance.now(), cpuMicros: processMicros() };
    this.#timer = setInterval(() => this.#sample(), intervalMs).unref();
  }

  /** Errors: `SLUICE_CONFLICT` where the tables are there for something else. */
  static async start(db: Database, tables: Tables, intervalMs: number): Promise<MachineSource> {
    for (const name of ['machine', 'cpu']) {
      const table = await tables.find(name, 5_000);
      if (table !== undefined && table.kind !== 'rows') {
        throw new SluiceError(
          'SLUICE_CONFLICT',
          `the built-in source writes rows into the table '${name}', which is there for something else: turn it off (--no-source), or use another file`,
        );
      }
    }
    const source = new MachineSource(db, intervalMs);
    for (const name of ['machine', 'cpu']) tables.keep(tables.claim(name, 'rows'));
    return source;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#loop.disable();
  }

  #sample(): void {
    const at = Date.now();
    try {
      this.#machine.append(this.#machineRow(at));
      for (const row of this.#cpuRows(at)) this.#cpu.append(row);
      if (++this.#samples % SAMPLES_BETWEEN_CUTS === 0) this.#cut();
    } catch (error) {
      // Full: the machine is busy with what matters more. Failed or closing: there is nobody to write for.
      const expected: readonly (string | undefined)[] = ['SLUICE_FULL', 'SLUICE_FAILED', 'SLUICE_CLOSED'];
      if (!expected.includes(codeOf(error))) throw error;
    }
  }

  #machineRow(at: number): MachineRow {
    const now = { at: performance.now(), cpuMicros: processMicros() };
    const elapsedMicros = (now.at - this.#process.at) * 1_000;
    const processCpu = elapsedMicros > 0 ? (now.cpuMicros - this.#process.cpuMicros) / elapsedMicros : 0;
    this.#process = now;
    const row: MachineRow = {
      at,
      load1: loadavg()[0] ?? 0,
      memory_used_bytes: totalmem() - freemem(),
      memory_total_bytes: totalmem(),
      loop_delay_p50_ms: lateness(this.#loop.percentile(50)),
      loop_delay_p99_ms: lateness(this.#loop.percentile(99)),
      loop_delay_max_ms: lateness(this.#loop.max),
      process_rss_bytes: process.memoryUsage.rss(),
      process_cpu: rounded(processCpu),
    };
    this.#loop.reset();
    return row;
  }

  #cpuRows(at: number): CpuRow[] {
    const before = this.#cores;
    this.#cores = cpus();
    return this.#cores.flatMap((core, i) => {
      const last = before[i];
      const busy = last === undefined ? undefined : busyShare(last, core);
      return busy === undefined ? [] : [{ at, core: i, busy }];
    });
  }

  /** Deletes what is older than what is kept. Rows are only ever appended, so rowid is the order of time. */
  #cut(): void {
    const delete_ = (table: string) => `DELETE FROM ${table} WHERE rowid <= (SELECT max(rowid) FROM ${table}) - ?`;
    this.#db.stage(delete_('machine'), [SAMPLES_KEPT]);
    this.#db.stage(delete_('cpu'), [SAMPLES_KEPT * Math.max(this.#cores.length, availableParallelism())]);
  }
}

/** `undefined` when the counters have not moved. */
function busyShare(before: CpuInfo, after: CpuInfo): number | undefined {
  const total = sum(after) - sum(before);
  return total > 0 ? rounded(1 - (after.times.idle - before.times.idle) / total) : undefined;
}

function sum({ times }: CpuInfo): number {
  return times.user + times.nice + times.sys + times.idle + times.irq;
}

function processMicros(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

/** The histogram has the whole time between two ticks, in nanoseconds; 0 when there was none. */
function lateness(nanoseconds: number): number {
  return rounded(Math.max(0, nanoseconds / 1e6 - LOOP_RESOLUTION_MS));
}

function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
