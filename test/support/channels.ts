import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { DiagnosticMessages } from 'sluicedb';
import { onTestFinished } from 'vitest';

export type ChannelName = keyof DiagnosticMessages;

/** All channels. The compiler says when one is missing. */
export const CHANNELS: readonly ChannelName[] = Object.keys({
  'sluicedb:flush': true,
  'sluicedb:sync': true,
  'sluicedb:dead-letter': true,
  'sluicedb:stall': true,
  'sluicedb:resume': true,
} satisfies Record<ChannelName, true>) as ChannelName[];

/** What a subscriber of one channel has seen, until `end` or the end of the test. */
export interface Subscription<Name extends ChannelName> {
  readonly seen: readonly DiagnosticMessages[Name][];
  end(): void;
}

export function listenTo<Name extends ChannelName>(name: Name): Subscription<Name> {
  const seen: DiagnosticMessages[Name][] = [];
  const note = (message: unknown) => {
    seen.push(message as DiagnosticMessages[Name]);
  };
  subscribe(name, note);
  const end = () => {
    unsubscribe(name, note);
  };
  onTestFinished(end);
  return { seen, end };
}
