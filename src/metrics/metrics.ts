import { basename } from 'node:path';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry, type RegistryContentType } from 'prom-client';
import { SluiceError } from '../base/errors.ts';
import { OptionReader, show } from '../base/options.ts';
import { FAMILIES, type Family, HISTOGRAMS, type HistogramFamily, type Moment, PREFIX } from './families.ts';
import type { MetricsEvents, MetricsSource } from './source.ts';

/** Options of {@link createMetrics}. */
export interface MetricsOptions {
  /**
   * Where the metrics go. Several databases can share a registry, also with metrics of your own.
   * @defaultValue a new registry
   */
  readonly registry?: Registry<RegistryContentType> | undefined;
  /**
   * Value of the label `db`, which every series has. Not empty.
   * @defaultValue the file name of the database, without folders
   */
  readonly db?: string | undefined;
  /**
   * Also put prom-client's metrics of the Node.js process into the registry, once, however many databases share it. They
   * stay there.
   * @defaultValue false
   */
  readonly processMetrics?: boolean | undefined;
}

/** The metrics of a database. */
export interface Metrics {
  readonly registry: Registry;
  /** Takes the series of this database out of the registry. Does not close the database. */
  close(): void;
}

/**
 * Makes the metrics of a database. Writes pay nothing for them: counters are read when the registry is scraped, all in one
 * go, so that what one scrape shows belongs together; durations are observed once per group commit and batch.
 *
 * The series of a database go when it is closed, or with {@link Metrics.close}. Opened again it can have the same label.
 *
 * Errors: `SLUICE_INVALID_OPTION`, also for a label that another database has in this registry; `SLUICE_CLOSED`.
 *
 * @example
 * ```ts
 * import { open } from 'sluicedb';
 * import { createMetrics } from 'sluicedb/metrics';
 *
 * const db = await open(':memory:');
 * const metrics = createMetrics(db, { db: 'telemetry' });
 * try {
 *   await db.aset('a', 1);
 *   console.log(await metrics.registry.metrics()); // … sluice_writes_accepted_total{db="telemetry",op="put"} 1 …
 * } finally {
 *   metrics.close();
 *   await db.close();
 * }
 * ```
 */
export function createMetrics(db: MetricsSource, options: MetricsOptions = {}): Metrics {
  const reader = new OptionReader(options);
  const resolved = readMetricsOptions(reader, db);
  reader.finish('createMetrics');
  return attach(db, resolved);
}

/** @internal */
export interface ResolvedMetricsOptions {
  readonly registry: Registry;
  readonly label: string;
  readonly processMetrics: boolean;
}

/** @internal Reads the options that all doors to metrics share; the caller finishes. */
export function readMetricsOptions(options: OptionReader, db: MetricsSource): ResolvedMetricsOptions {
  const registry = options.any('registry');
  const label = options.text('db', basename(db.path));
  const processMetrics = options.boolean('processMetrics', false);
  if (registry !== undefined && !isRegistry(registry)) {
    options.refuse('registry', `must be a Registry of prom-client, not ${show(registry)}`);
  }
  if (label === '') options.refuse('db', 'must not be empty');
  return { registry: (registry as Registry | undefined) ?? new Registry(), label, processMetrics };
}

/** @internal {@link createMetrics} with checked options. */
export function attach(db: MetricsSource, { registry, label, processMetrics }: ResolvedMetricsOptions): Metrics {
  const detach = boardOf(registry).add(label, db);
  if (processMetrics && registry.getSingleMetric('process_cpu_seconds_total') === undefined) {
    collectDefaultMetrics({ register: registry });
    for (const name of MISNAMED) registry.removeSingleMetric(name);
  }
  return { registry, close: detach };
}

/** Gauges of prom-client that are named as counters, which `promtool check metrics` minds. They are there by type, too. */
const MISNAMED = ['handles', 'requests', 'resources'].map((name) => `nodejs_active_${name}_total`);

/** Not `instanceof`: the application may have a prom-client of its own. */
function isRegistry(value: unknown): boolean {
  const registry = value as Partial<Registry> | null;
  return typeof registry?.registerMetric === 'function' && typeof registry.getSingleMetric === 'function';
}

const boards = new WeakMap<Registry, Board>();

/** The board of a registry; a new one for a registry that was cleared. */
function boardOf(registry: Registry): Board {
  let board = boards.get(registry);
  if (board?.isRegistered !== true) {
    board?.clear();
    board = new Board(registry);
    boards.set(registry, board);
  }
  return board;
}

/** A database on a board. */
interface Attached {
  readonly source: MetricsSource;
  /** Hears of nothing any more. */
  readonly stop: () => void;
  /** And takes its series along. */
  readonly detach: () => void;
}

/** The families of one registry, and the databases that they are read from. */
class Board {
  readonly #registry: Registry;
  readonly #sources = new Map<string, Attached>();
  readonly #metrics = new Map<string, Counter | Gauge | Histogram>();
  readonly #histograms: readonly (readonly [HistogramFamily, Histogram])[];
  #moments: ReadonlyMap<string, Moment> | undefined;

  constructor(registry: Registry) {
    this.#registry = registry;
    for (const family of FAMILIES) this.#register(family.name, this.#metricOf(family));
    this.#histograms = HISTOGRAMS.map((family) => [family, this.#register(family.name, histogramOf(family))]);
  }

  /** Whether the registry still has what was put into it. */
  get isRegistered(): boolean {
    const name = `${PREFIX}build_info`;
    return this.#registry.getSingleMetric(name) === this.#metrics.get(name);
  }

  /** Returns what takes the database out again. */
  add(label: string, source: MetricsSource): () => void {
    if (source.state === 'closed') {
      throw new SluiceError('SLUICE_CLOSED', 'createMetrics: the database is closed, and has no metrics any more');
    }
    const before = this.#sources.get(label);
    if (before !== undefined && before.source !== source) {
      throw new SluiceError(
        'SLUICE_INVALID_OPTION',
        `createMetrics: another database has the label ${show(label)} in this registry; pass another one as the option db`,
      );
    }
    const labels = { db: label };
    // The same database once more: what was observed stays.
    if (before === undefined) for (const [, histogram] of this.#histograms) histogram.zero(labels);
    else before.stop();

    const observe = <Name extends keyof MetricsEvents>(name: Name) => {
      const histograms = this.#histograms.filter(([{ event }]) => event === name);
      const listener = (event: MetricsEvents[Name][0]) => {
        for (const [{ value }, histogram] of histograms) {
          const observed = value(event, source.options);
          if (observed !== undefined && Number.isFinite(observed)) histogram.observe(labels, observed);
        }
      };
      source.on(name, listener as (...payload: MetricsEvents[Name]) => void);
      return () => source.off(name, listener as (...payload: MetricsEvents[Name]) => void);
    };
    const stops = [observe('commit'), observe('flush'), observe('checkpoint')];
    const onState = (...[{ state }]: MetricsEvents['state']) => {
      if (state === 'closed') detach();
    };
    source.on('state', onState);

    const stop = () => {
      for (const stopOne of stops) stopOne();
      source.off('state', onState);
    };
    const detach = () => {
      if (this.#sources.get(label)?.detach !== detach) return;
      stop();
      this.#sources.delete(label);
      for (const [, histogram] of this.#histograms) histogram.remove(labels);
    };
    this.#sources.set(label, { source, stop, detach });
    return detach;
  }

  /** Lets go of all databases. */
  clear(): void {
    for (const { detach } of [...this.#sources.values()]) detach();
  }

  #register<M extends Counter | Gauge | Histogram>(name: string, metric: M): M {
    const full = PREFIX + name;
    try {
      this.#registry.registerMetric(metric);
    } catch (cause) {
      for (const done of this.#metrics.keys()) this.#registry.removeSingleMetric(done);
      throw new SluiceError('SLUICE_INVALID_OPTION', `the registry has a metric ${full} that is not of Sluice`, {
        cause,
      });
    }
    this.#metrics.set(full, metric);
    return metric;
  }

  /** A metric that is filled anew at every scrape, from totals. */
  #metricOf(family: Family): Counter | Gauge {
    const { type, name, help, labels } = family;
    const config = { name: PREFIX + name, help, labelNames: ['db', ...labels], registers: [] };
    if (type === 'counter') {
      const counter: Counter = new Counter({
        ...config,
        collect: () => {
          counter.reset();
          this.#read(family, (labels, value) => {
            if (value >= 0) counter.inc(labels, value);
          });
        },
      });
      return counter;
    }
    const gauge: Gauge = new Gauge({
      ...config,
      collect: () => {
        gauge.reset();
        this.#read(family, (labels, value) => gauge.set(labels, value));
      },
    });
    return gauge;
  }

  /** Leaves out what is no number: prom-client would take it, and a 0 in its place would look like a restart. */
  #read(family: Family, set: (labels: Record<string, string>, value: number) => void): void {
    for (const [db, moment] of this.#momentOf(family)) {
      for (const [value, ...of] of family.read(moment)) {
        if (value === undefined || !Number.isFinite(value)) continue;
        const own = family.labels.map((label, i) => [label, of[i] as string]);
        set({ db, ...Object.fromEntries(own) }, value);
      }
    }
  }

  /**
   * The numbers of all databases, read once a scrape, so that what it shows belongs together: prom-client collects all
   * metrics of a scrape in one turn, in the order in which they were registered.
   */
  #momentOf(family: Family): ReadonlyMap<string, Moment> {
    if (this.#moments === undefined || family === FAMILIES[0]) {
      this.#moments = new Map([...this.#sources].map(([db, { source }]) => [db, { source, stats: source.stats() }]));
      queueMicrotask(() => {
        this.#moments = undefined;
      });
    }
    return this.#moments;
  }
}

function histogramOf({ name, help, buckets }: HistogramFamily): Histogram {
  return new Histogram({ name: PREFIX + name, help, buckets: [...buckets], labelNames: ['db'], registers: [] });
}
