/**
 * Prometheus metrics of a database.
 *
 * @packageDocumentation
 */
export { type MetricsFetchHandler, type MetricsHandler, metricsFetchHandler, metricsHandler } from './handlers.ts';
export { createMetrics, type Metrics, type MetricsOptions } from './metrics.ts';
export { type MetricsServer, type ServeMetricsOptions, serveMetrics } from './serve.ts';
export type { MetricsEvents, MetricsSource } from './source.ts';
export type { DatabaseStats, ReadSource, RecoveryNumbers } from './stats.ts';
