import Negotiator from 'negotiator';
import { openMetricsContentType, prometheusContentType, type Registry, type RegistryContentType } from 'prom-client';
import { toOpenMetrics } from './openmetrics.ts';

/** The metrics of a registry in the format that was chosen. */
export interface Exposition {
  readonly contentType: string;
  readonly text: string;
}

/**
 * Collects a registry once, in the format that an `Accept` header asks for. A registry that its owner has set to OpenMetrics
 * is written by prom-client, as it always was, whatever the header says: it has the exemplars, and prom-client has forgotten
 * how its counters were called.
 */
export async function expose(registry: Registry<RegistryContentType>, accept: string | undefined): Promise<Exposition> {
  const { contentType } = registry;
  const text = await registry.metrics();
  if (contentType === openMetricsContentType || !asksForOpenMetrics(accept)) return { contentType, text };
  return { contentType: openMetricsContentType, text: toOpenMetrics(text) };
}

/** The first is what is sent where nothing decides: to `*\/*`, and to who accepts neither. */
const OFFERED = [prometheusContentType, openMetricsContentType] as const;

function asksForOpenMetrics(accept: string | undefined): boolean {
  // Prometheus 3 says how names outside of the old character set are to be escaped. There are none, so any way will do, and
  // for Negotiator a parameter that is not offered would rule the format out.
  const header = accept?.replace(/;\s*escaping=("[^"]*"|[^;,]*)/gi, '');
  return new Negotiator({ headers: { accept: header } }).mediaType(OFFERED) === openMetricsContentType;
}
