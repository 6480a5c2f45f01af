#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { backupCommand } from './backup-command.ts';
import { dlqCommand } from './dlq-command.ts';
import { ingestCommand } from './ingest-command.ts';
import { inspectCommand } from './inspect-command.ts';
import { restoreCommand } from './restore-command.ts';
import { serveCommand } from './serve-command.ts';
import { verifyCommand } from './verify-command.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const program = new Command('sluice')
  .description(
    'A write-behind store on SQLite: a collector over HTTP, a loader of CSV and NDJSON files, and what looks after the files.',
  )
  .version(version)
  .showHelpAfterError('(sluice --help, or sluice COMMAND --help, says what there is)')
  .addCommand(serveCommand(version))
  .addCommand(ingestCommand())
  .addCommand(dlqCommand())
  .addCommand(backupCommand())
  .addCommand(restoreCommand())
  .addCommand(inspectCommand())
  .addCommand(verifyCommand());

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof SluiceError)) throw error;
  // What the user can do is in the message; where it was thrown helps nobody.
  console.error(`sluice: ${error.message} (${error.code})`);
  process.exitCode = 1;
}
