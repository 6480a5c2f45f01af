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

const groupsIn = <R>(file: string): RuleFile<R>['groups'] =>
  (parse(readFileSync(join(MONITORING, 'prometheus', 'rules', file), 'utf8')) as RuleFile<R>).groups;

const alerting = groupsIn<AlertRule>('alerts.yml');
const recording = groupsIn<RecordingRule>('recording.yml');

export const ALERTS: readonly AlertRule[] = alerting.flatMap(({ rules }) => rules);
export const RECORDINGS: readonly RecordingRule[] = recording.flatMap(({ rules }) => rules);
/** Names of the groups, those that record first. */
export const GROUPS: readonly string[] = [...recording, ...alerting].map(({ name }) => name);

/** The metrics of Sluice that a text speaks of; those that a recording rule makes are not among them. */
export function metricsIn(text: string): string[] {
  return [...new Set([...text.matchAll(/(?<![\w:])sluice_\w+/g)].map(([name]) => name))];
}
