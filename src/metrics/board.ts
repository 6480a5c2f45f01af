import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { SluiceError } from '../base/errors.ts';
import { show } from '../base/options.ts';
import { FAMILIES, type Family, HISTOGRAMS, type HistogramFamily, type Moment, PREFIX } from './families.ts';
import type { MetricsEvents, MetricsSource } from './source.ts';

const boards = new WeakMap<Registry, Board>();

/** The board of a registry; a new one for a registry that was cleared. */
export function boardOf(registry: Registry): Board {
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
