package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// field is one value of a result: as a program wants it, and as people do.
type field struct {
	name  string
	value any
	text  string // "" = value itself
}

// record is one result; its order is the order of printing.
type record []field

func (r record) find(name string) (field, bool) {
	for _, f := range r {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// printer prints results in the form that -f and -c ask for.
type printer struct {
	c      *cli.Context
	out    io.Writer
	format string
	pick   []string // -c; empty = the command's choice
	open   bool     // a field that a record lacks is empty, not a mistake: images have properties
}

// newPrinter reads -f and -c; commands call it first, so that a mistake there
// costs nothing.
func newPrinter(c *cli.Context, s streams) (*printer, error) {
	p := &printer{c: c, out: s.out, format: c.String("output-format")}
	if !slices.Contains([]string{"table", "json", "value"}, p.format) {
		return nil, usagef(c, "-f %q is not one of table, json, value", p.format)
	}
	for _, name := range c.StringSlice("column") {
		p.pick = append(p.pick, strings.ReplaceAll(strings.ToLower(name), " ", "_"))
	}
	return p, nil
}

// one prints a single result: a table of fields, a JSON object, or a value a line.
func (p *printer) one(r record) error {
	if err := p.know([]record{r}); err != nil {
		return err
	}
	if len(p.pick) > 0 {
		r = choose(r, p.pick)
	}
	switch p.format {
	case "json":
		return p.json(object(r))
	case "value":
		for _, f := range r {
			if _, err := fmt.Fprintln(p.out, plain(f.value)); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(r))
	for i, f := range r {
		rows[i] = []string{printable(f.name), cell(f)}
	}
	return p.table([]string{"field", "value"}, rows)
}

// list prints results with the given columns: a table, a JSON array of whole
// objects, or a line each with tabs between the values. -c chooses other columns.
func (p *printer) list(columns []string, records []record) error {
	if err := p.know(records); err != nil {
		return err
	}
	if len(p.pick) > 0 {
		columns = p.pick
	}
	switch p.format {
	case "json":
		objects := make([]json.RawMessage, 0, len(records))
		for _, r := range records {
			if len(p.pick) > 0 {
				r = choose(r, p.pick)
			}
			objects = append(objects, object(r))
		}
		return p.json(objects)
	case "value":
		for _, r := range records {
			var values []string
			for _, f := range choose(r, columns) {
				values = append(values, plain(f.value))
			}
			if _, err := fmt.Fprintln(p.out, strings.Join(values, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(records))
	for i, r := range records {
		for _, f := range choose(r, columns) {
			rows[i] = append(rows[i], cell(f))
		}
	}
	return p.table(columns, rows)
}

// know refuses columns that none of the records has.
func (p *printer) know(records []record) error {
	if p.open || len(records) == 0 {
		return nil
	}
	for _, name := range p.pick {
		if !slices.ContainsFunc(records, func(r record) bool { _, ok := r.find(name); return ok }) {
			var names []string
			for _, f := range records[0] {
				names = append(names, f.name)
			}
			return usagef(p.c, "there is no column %q; there is: %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

func choose(r record, names []string) record {
	chosen := make(record, len(names))
	for i, name := range names {
		f, _ := r.find(name)
		f.name = name
		chosen[i] = f
	}
	return chosen
}

// object is r as a JSON object that keeps its order.
func object(r record) json.RawMessage {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(jsonText(f.name) + ":" + jsonText(f.value))
	}
	b.WriteByte('}')
	return json.RawMessage(b.String())
}

func (p *printer) json(v any) error {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonText is v as JSON; our values are what JSON was decoded to, so it cannot fail.
func jsonText(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "null"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// cell is a field's text in a table.
func cell(f field) string {
	if f.text != "" {
		return printable(f.text)
	}
	return plain(f.value)
}

// plain is a value on one line: text without quotes, lists with commas, null as nothing.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return printable(v)
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = plain(x)
		}
		return strings.Join(parts, ", ")
	case []string:
		return printable(strings.Join(v, ", "))
	case map[string]any:
		return printable(jsonText(v))
	}
	return printable(fmt.Sprint(v))
}

func (p *printer) table(columns []string, rows [][]string) error {
	widths := make([]int, len(columns))
	heads := make([]string, len(columns))
	for i, name := range columns {
		heads[i] = printable(name)
		widths[i] = cells(heads[i])
		for _, row := range rows {
			widths[i] = max(widths[i], cells(row[i]))
		}
	}
	var b strings.Builder
	line := func() {
		for _, w := range widths {
			b.WriteString("+" + strings.Repeat("-", w+2))
		}
		b.WriteString("+\n")
	}
	put := func(row []string) {
		for i, text := range row {
			b.WriteString("| " + padded(text, widths[i]) + " ")
		}
		b.WriteString("|\n")
	}
	line()
	put(heads)
	line()
	for _, row := range rows {
		put(row)
	}
	line()
	_, err := io.WriteString(p.out, b.String())
	return err
}
