import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

export const MONITORING: string = join(import.meta.dirname, '..', '..', 'monitoring');

export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string; readonly runbook: string };
}

export interface RecordingRule {
  readonly record: string;
  readonly expr: string;
}

interface RuleFile<R> {
  readonly groups: readonly { readonly name: string; readonly rules: readonly R[] }[];
}

const rulesIn = <R>(file: string): R[] =>
  (parse(readFileSync(join(MONITORING, 'prometheus', 'rules', file), 'utf8')) as RuleFile<R>).groups.flatMap(
    ({ rules }) => rules,
  );

export const ALERTS: readonly AlertRule[] = rulesIn<AlertRule>('alerts.yml');
export const RECORDINGS: readonly RecordingRule[] = rulesIn<RecordingRule>('recording.yml');

/** The metrics of Sluice that a text speaks of; those that a recording rule makes are not among them. */
export function metricsIn(text: string): string[] {
  return [...new Set([...text.matchAll(/(?<![\w:])sluice_\w+/g)].map(([name]) => name))];
}
