import { basename } from 'node:path';
import { collectDefaultMetrics, Registry, type RegistryContentType } from 'prom-client';
import { OptionReader, show } from '../base/options.ts';
import { boardOf } from './board.ts';
import type { MetricsSource } from './source.ts';

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
  /** Where they are: the registry that was passed in, or a new one. */
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
