/** What a panel is, and how Grafana's SDK is told of it: the look that all panels share is here, what they show is in rows.ts. */
import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import {
  AxisPlacement,
  BigValueColorMode,
  BigValueGraphMode,
  type DataSourceRef,
  GraphDrawStyle,
  GraphThresholdsStyleConfigBuilder,
  GraphThresholdsStyleMode,
  LegendDisplayMode,
  LegendPlacement,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common';
import {
  type DynamicConfigValue,
  FieldColorBuilder,
  FieldColorModeId,
  type GridPos,
  MappingType,
  type Panel,
  type Threshold,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  type ValueMapping,
} from '@grafana/grafana-foundation-sdk/dashboard';
import {
  HeatmapColorMode,
  HeatmapColorOptionsBuilder,
  PanelBuilder as HeatmapPanel,
  HeatmapTooltipBuilder,
  YAxisConfigBuilder,
} from '@grafana/grafana-foundation-sdk/heatmap';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatPanel } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as StatesPanel } from '@grafana/grafana-foundation-sdk/statetimeline';
import { PanelBuilder as TablePanel } from '@grafana/grafana-foundation-sdk/table';
import { PanelBuilder as GraphPanel } from '@grafana/grafana-foundation-sdk/timeseries';

/** By Grafana's ids: writes, operations and bytes a second, bytes, seconds, a share of 1, a number, and words for numbers. */
export type Unit = 'wps' | 'ops' | 'binBps' | 'bytes' | 's' | 'percentunit' | 'short' | 'none';

export interface Series {
  readonly expr: string;
  readonly legend: string;
  /** Of its own, on an axis at the right. */
  readonly unit?: Unit;
  /** A dashed line that is not stacked on the others: a limit, or what the others add up to. */
  readonly reference?: true;
}

interface Named {
  readonly title: string;
  /** What it shows, what is normal, and what to do when it is not. */
  readonly description: string;
  readonly unit: Unit;
  /** Of 24 columns. */
  readonly width: number;
}

interface Graph extends Named {
  readonly kind: 'graph';
  readonly series: readonly Series[];
  readonly stacked?: true;
  /** A value that must not be reached, drawn as a dashed line. */
  readonly limit?: number;
}

/** One number. */
interface Stat extends Named {
  readonly kind: 'stat';
  readonly expr: string;
  /** A number over the time range has no curve. */
  readonly curve?: true;
  /** From here on it is not as it should be. */
  readonly limit?: number;
}

/** A band for each database, whose colour and word say what it was when. */
export interface States extends Named {
  readonly kind: 'states';
  readonly expr: string;
  readonly words: Words;
}

interface Heatmap extends Named {
  readonly kind: 'heatmap';
  readonly expr: string;
}

/** A line for each database. */
interface Table extends Named {
  readonly kind: 'table';
  /** Labels that become columns, with their names. */
  readonly labels: Readonly<Record<string, string>>;
  readonly columns: readonly Column[];
}

interface Column {
  readonly name: string;
  readonly expr: string;
  /** None for a query that is there for its labels. */
  readonly unit?: Unit;
  readonly words?: Words;
}

export type PanelSpec = Graph | Stat | States | Heatmap | Table;

/** What the numbers of a metric mean: word and colour by number. */
export type Words = Readonly<Record<number, readonly [word: string, color: Color]>>;

export type Color = 'green' | 'yellow' | 'orange' | 'red' | 'blue' | 'purple' | 'text';

export const DATA_SOURCE: DataSourceRef = { type: 'prometheus', uid: `\${datasource}` };

export function panel(spec: PanelSpec, id: number, place: GridPos): Builder<Panel> {
  const builder = builderOf(spec);
  return builder
    .id(id)
    .title(spec.title)
    .description(spec.description)
    .datasource(DATA_SOURCE)
    .gridPos(place)
    .unit(spec.unit);
}

function builderOf(spec: PanelSpec): GraphPanel | StatPanel | StatesPanel | HeatmapPanel | TablePanel {
  switch (spec.kind) {
    case 'graph':
      return graph(spec);
    case 'stat':
      return stat(spec);
    case 'states':
      return states(spec);
    case 'heatmap':
      return heatmap(spec);
    case 'table':
      return table(spec);
    default:
      return spec satisfies never;
  }
}

function graph({ series, unit, stacked, limit }: Graph): GraphPanel {
  const builder = new GraphPanel()
    .targets(series.map(({ expr, legend }, i) => query(i, expr).legendFormat(legend).range()))
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.PaletteClassic))
    .drawStyle(GraphDrawStyle.Line)
    .lineWidth(1)
    .fillOpacity(stacked ? 30 : 10)
    .showPoints(VisibilityMode.Never)
    .stacking(new StackingConfigBuilder().group('A').mode(stacked ? StackingMode.Normal : StackingMode.None))
    .min(0)
    .legend(
      new VizLegendOptionsBuilder()
        .showLegend(true)
        .displayMode(LegendDisplayMode.Table)
        .placement(LegendPlacement.Bottom)
        .calcs(['lastNotNull', 'max']),
    )
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending));
  if (limit !== undefined) {
    builder
      // So that the line is seen before it is near.
      .axisSoftMax(limit)
      .thresholds(steps([null, 'green'], [limit, 'red']))
      .thresholdsStyle(new GraphThresholdsStyleConfigBuilder().mode(GraphThresholdsStyleMode.Dashed));
  }
  for (const [i, one] of series.entries()) {
    const properties: DynamicConfigValue[] = [];
    if (one.unit !== undefined && one.unit !== unit) {
      properties.push({ id: 'unit', value: one.unit }, { id: 'custom.axisPlacement', value: AxisPlacement.Right });
    }
    if (one.reference) {
      properties.push(
        { id: 'custom.lineStyle', value: { fill: 'dash', dash: [10, 10] } },
        { id: 'custom.fillOpacity', value: 0 },
        { id: 'custom.stacking', value: { group: 'A', mode: StackingMode.None } },
      );
    }
    if (properties.length > 0) builder.overrideByQuery(refId(i), properties);
  }
  return builder;
}

function stat({ expr, curve, limit }: Stat): StatPanel {
  const target = query(0, expr).legendFormat('');
  return (
    new StatPanel()
      .withTarget(curve ? target.range() : target.instant())
      .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']))
      .graphMode(curve ? BigValueGraphMode.Area : BigValueGraphMode.None)
      .colorMode(BigValueColorMode.Value)
      .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
      // Without steps of its own a number turns red at 80.
      .thresholds(limit === undefined ? steps([null, 'text']) : steps([null, 'green'], [limit, 'orange']))
  );
}

function states({ expr, words }: States): StatesPanel {
  return new StatesPanel()
    .withTarget(query(0, expr).legendFormat('{{db}} @ {{instance}}').range())
    .mappings([wordsOf(words)])
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
    .thresholds(steps([null, 'text']))
    .showValue(VisibilityMode.Auto)
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Single).sort(SortOrder.None));
}

function heatmap({ expr, unit }: Heatmap): HeatmapPanel {
  return new HeatmapPanel()
    .withTarget(query(0, expr).legendFormat('{{le}}').format(PromQueryFormat.Heatmap).range())
    .calculate(false)
    .yAxis(new YAxisConfigBuilder().unit(unit))
    .color(
      new HeatmapColorOptionsBuilder()
        .mode(HeatmapColorMode.Scheme)
        .scheme('Oranges')
        .exponent(0.5)
        .steps(64)
        .reverse(false),
    )
    .tooltip(new HeatmapTooltipBuilder().mode(TooltipDisplayMode.Single).yHistogram(true));
}

function table({ labels, columns }: Table): TablePanel {
  const builder = new TablePanel()
    .targets(columns.map(({ expr }, i) => query(i, expr).format(PromQueryFormat.Table).instant()))
    // All queries have the labels instance and db: what is of one database becomes one line.
    .withTransformation({ id: 'merge', options: {} })
    .withTransformation({
      id: 'organize',
      options: {
        excludeByName: {
          Time: true,
          ...Object.fromEntries(columns.flatMap(({ unit }, i) => (unit ? [] : [[valueName(i), true]]))),
        },
        renameByName: {
          ...labels,
          ...Object.fromEntries(columns.flatMap(({ name, unit }, i) => (unit ? [[valueName(i), name]] : []))),
        },
        indexByName: Object.fromEntries(
          [...Object.keys(labels), ...columns.map((_, i) => valueName(i))].map((name, position) => [name, position]),
        ),
      },
    });
  for (const { name, unit, words } of columns) {
    if (unit === undefined) continue;
    const mappings = words ? [{ id: 'mappings', value: [wordsOf(words)] }] : [];
    builder.overrideByName(name, [{ id: 'unit', value: unit }, ...mappings]);
  }
  return builder;
}

function query(index: number, expr: string): DataqueryBuilder {
  return new DataqueryBuilder().refId(refId(index)).datasource(DATA_SOURCE).expr(expr);
}

const refId = (index: number): string => String.fromCharCode('A'.charCodeAt(0) + index);
/** The name that Grafana gives to the value of a query in a table. */
const valueName = (index: number): string => `Value #${refId(index)}`;

function steps(...list: readonly (readonly [from: number | null, color: Color])[]): ThresholdsConfigBuilder {
  return new ThresholdsConfigBuilder()
    .mode(ThresholdsMode.Absolute)
    .steps(list.map(([value, color]): Threshold => ({ value, color })));
}

function wordsOf(words: Words): ValueMapping {
  const options = Object.entries(words).map(
    ([value, [text, color]], index) => [value, { text, color, index }] as const,
  );
  return { type: MappingType.ValueToText, options: Object.fromEntries(options) };
}
