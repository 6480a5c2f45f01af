/**
 * Prometheus metrics of a database.
 *
 * @packageDocumentation
 */
export { type MetricsFetchHandler, type MetricsHandler, metricsFetchHandler, metricsHandler } from './handlers.ts';
export { createMetrics, type Metrics, type MetricsOptions } from './metrics.ts';
export { type MetricsServer, type ServeMetricsOptions, serveMetrics } from './serve.ts';
export type { MetricsSource, MetricsStats } from './source.ts';
