export { AppendLog, type AppendLogOptions, type LogNumbers } from './append-log.ts';
export { LogFailure, type LogOperation } from './log-failure.ts';
export { Recovery, type RecoveryPolicy, type RecoveryReport } from './recovery.ts';
export { type LogFinding, LogSurvey, type RecoveryForecast, type SegmentFacts } from './survey.ts';
