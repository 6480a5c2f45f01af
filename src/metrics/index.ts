/**
 * Prometheus metrics of a database.
 *
 * @packageDocumentation
 */
export {
  type MetricsHandler,
  type MetricsServer,
  metricsHandler,
  type ServeMetricsOptions,
  serveMetrics,
} from './http.ts';
export { createMetrics, type Metrics, type MetricsOptions } from './metrics.ts';
export type { MetricsEvents, MetricsSource } from './source.ts';
export type { DatabaseStats, ReadSource, RecoveryNumbers } from './stats.ts';
