/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-rules.h"
#include "mitherm-fit.h"

G_BEGIN_DECLS

/* The planner of libmi with what the daemon can do and knows (docs/rules.md). */

/* What is known of @device before it is asked. */
void mitherm_plan_get_target (MithermDevice *device, MithermTarget *target);

/**
 * mitherm_plan_new:
 * @images: (element-type MiImage): in the order given
 * @envelope: (nullable): goes around the image that the plan has last
 * @expect: (nullable): version expected of that one
 */
MiPlan *mitherm_plan_new (MithermManager *manager, const MithermTarget *target, GPtrArray *images,
                          GBytes *envelope, const char *expect);

/**
 * mitherm_plan_check_rules:
 * @min_battery_mv: (inout): raised where a rule wants more
 * @notes: (nullable) (element-type utf8): gets the texts of notes
 *
 * What the rules say about one image for @target: refusals, and risks that must be accepted.
 * Errors: MITHERM_ERROR_BAD_IMAGE, or the one that goes with the risk.
 */
gboolean mitherm_plan_check_rules (MithermManager *manager, const MithermTarget *target,
                                   MiImage *image, MithermRisk accept, guint *min_battery_mv,
                                   GPtrArray *notes, GError **error);

/* Whether every image that must come first is among those planned. MITHERM_ERROR_UNSUPPORTED */
gboolean mitherm_plan_check_order (MiPlan *plan, GError **error);

G_END_DECLS
