/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/* Left-aligned columns; the cells are copied. The first row is the heading. */
typedef struct _Table Table;
Table *table_new (guint columns);
void table_add (Table *self, ...) G_GNUC_NULL_TERMINATED;
void table_print (Table *self);
/* @end: what ends a line instead of a line feed */
void table_print_with_end (Table *self, const char *end);
void table_free (Table *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Table, table_free)

/* "3 min ago", "never" for 0. */
char *output_age (guint64 time_us);
/* "86.3 kB" */
char *output_bytes (double bytes);
/* Text from outside, safe for a terminal: control characters replaced. */
char *output_clean (const char *text);

/* One line of JSON on stdout. @value is consumed if floating. */
void output_json (GVariant *value);
/* All cached properties of a proxy as a{sv} in the order of the interface; of a job also its path,
 * "Job". */
GVariant *output_properties (GDBusProxy *proxy);

/* Prints "name: value" lines of an a{sv}, nested dictionaries indented. */
void output_facts (GVariant *facts, int indent);

G_END_DECLS
