/**
 * Makes the Grafana dashboard.
 *
 *     npm run dashboard              writes dashboards/sluice.json
 *     npm run dashboard -- --check   only says whether the file is what would be written: exit code 1 if not
 *
 * Another file may be named behind that.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  AnnotationQueryBuilder,
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DATA_SOURCE, panel } from './panels.ts';
import { ofProcess } from './queries.ts';
import { ROWS } from './rows.ts';

const COLUMNS = 24;
const LINE_HEIGHT = 8;
const STAT_HEIGHT = 5;

/** Of Grafana 11.0; a newer Grafana brings it up to its own when it loads the file. */
const SCHEMA_VERSION = 39;

function dashboard(): Dashboard {
  const builder = new DashboardBuilder('Sluice')
    .uid('sluice')
    .description('Databases of Sluice: writes, log, flush, SQLite, dead letters, recovery and the process they run in.')
    .tags(['sluice', 'sqlite'])
    .timezone('browser')
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .tooltip(DashboardCursorSync.Crosshair)
    .variables([
      new DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'),
      choice('job', 'Job', 'label_values(sluice_build_info, job)'),
      choice('instance', 'Instance', 'label_values(sluice_build_info{job=~"$job"}, instance)'),
      choice('db', 'Database', 'label_values(sluice_build_info{job=~"$job", instance=~"$instance"}, db)'),
    ])
    .annotation(
      new AnnotationQueryBuilder()
        .name('Process started')
        .datasource(DATA_SOURCE)
        .iconColor('blue')
        // One point a minute, of which exactly one falls into the first minute of a process.
        .expr(`time() - ${ofProcess('process_start_time_seconds')} < 60`)
        .step('60s')
        .titleFormat('Process started')
        .textFormat('{{instance}}'),
    );

  let id = 1;
  let y = 0;
  for (const { title, panels } of ROWS) {
    builder.withRow(new RowBuilder(title).id(id++).gridPos({ x: 0, y: y++, w: COLUMNS, h: 1 }));
    let x = 0;
    let height = 0;
    for (const spec of panels) {
      if (x + spec.width > COLUMNS) [x, y, height] = [0, y + height, 0];
      // The first panel of a line says how high the line is.
      height ||= spec.kind === 'stat' ? STAT_HEIGHT : LINE_HEIGHT;
      builder.withPanel(panel(spec, id++, { x, y, w: spec.width, h: height }));
      x += spec.width;
    }
    y += height;
  }
  return { ...builder.build(), schemaVersion: SCHEMA_VERSION };
}

/**
 * Several of them, at first all. "All" stands for the values that were found and not for `.*`: of the process metrics, which
 * every Node.js program has, it leaves those of other programs out.
 */
function choice(name: string, label: string, query: string): QueryVariableBuilder {
  return new QueryVariableBuilder(name)
    .label(label)
    .datasource(DATA_SOURCE)
    .query(query)
    .definition(query)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .current({ selected: true, text: ['All'], value: ['$__all'] });
}

/** With sorted keys, as Grafana exports it: what was changed there and exported shows up in a diff, and nothing else. */
function textOf(value: unknown): string {
  const sorted = (_key: string, inner: unknown): unknown =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner;
  return `${JSON.stringify(value, sorted, 2)}\n`;
}

const check = process.argv.includes('--check');
const file =
  process.argv.slice(2).find((argument) => !argument.startsWith('-')) ??
  fileURLToPath(new URL('../../monitoring/grafana/dashboards/sluice.json', import.meta.url));
const text = textOf(dashboard());

if (!check) {
  writeFileSync(file, text);
} else if (readFileSync(file, 'utf8') !== text) {
  console.error(`${file} is not up to date: npm run dashboard`);
  process.exitCode = 1;
}
