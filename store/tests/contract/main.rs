//! The contract, theme by theme, against every store. Each theme is plain functions over a [`Bench`](world::Bench): a store and the
//! clock it was given, so another implementation joins by a line in `every_store!`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bounds;
mod claims;
mod collapse;
mod expiry;
mod fencing;
mod groups;
mod holds;
mod leases;
mod listing;
mod locks;
mod members;
mod order;
mod progress;
mod reaping;
#[allow(dead_code, reason = "the tests of servers that fail over use the rest of it")]
mod redis_forms;
#[allow(dead_code, reason = "the tests of a server that goes away use the rest of it")]
mod redis_server;
mod retained;
mod returns;
mod subscriptions;
mod wills;
#[allow(dead_code, reason = "the durability tests use the rest of it")]
mod world;
mod write_back;

/// Runs a theme's stories against each store.
macro_rules! every_store {
    ($($theme:ident: $($story:ident),* $(,)?;)*) => {
        mod memory {
            $(mod $theme { $(
                #[test]
                fn $story() { crate::$theme::$story(&crate::world::Bench::memory()); }
            )* })*
        }
        mod embedded {
            $(mod $theme { $(
                #[test]
                fn $story() { crate::$theme::$story(&crate::world::Bench::embedded()); }
            )* })*
        }
        mod redis {
            $(mod $theme { $(
                #[test]
                fn $story() { crate::$theme::$story(&crate::world::Bench::redis()); }
            )* })*
        }
        mod sentinel {
            $(mod $theme { $(
                #[test]
                fn $story() { crate::$theme::$story(&crate::world::Bench::sentinel()); }
            )* })*
        }
        mod cluster {
            $(mod $theme { $(
                #[test]
                fn $story() { crate::$theme::$story(&crate::world::Bench::cluster()); }
            )* })*
        }
    };
}

every_store! {
    fencing:
        a_new_client_is_opened_without_a_session,
        epochs_only_grow,
        a_takeover_names_the_former_owner_and_fences_it,
        the_same_owner_is_not_its_own_former_one,
        a_write_of_a_session_that_is_not_there_is_told_so,
        a_close_by_a_former_owner_leaves_the_new_session_alone,
        a_takeover_of_a_session_without_expiry_finds_nothing;
    expiry:
        a_resting_session_is_there_until_it_expires,
        a_session_that_never_expires_is_there_after_a_century,
        a_connected_session_does_not_expire,
        a_close_with_expiry_zero_discards,
        a_close_can_shorten_and_lengthen_the_expiry,
        a_clean_start_discards_what_was_there,
        a_session_without_expiry_is_gone_with_its_connection,
        a_resume_with_expiry_zero_keeps_the_session_until_it_closes,
        streams_go_with_the_last_session_that_expires,
        many_sessions_that_expire_at_once_are_all_gone,
        each_session_that_expired_is_told_once,
        an_expiry_that_a_clients_return_finds_is_told_too,
        as_many_expired_sessions_are_told_as_are_wanted,
        what_expires_long_after_anyone_asked_is_told_to_nobody;
    subscriptions:
        a_subscription_begins_at_the_end_of_its_stream,
        subscribing_again_keeps_the_cursor,
        a_filter_with_qos_zero_has_no_stream,
        a_filter_of_the_devices_own_is_among_those_that_a_starting_bridge_learns,
        lowering_the_qos_to_zero_drops_the_cursor,
        a_session_without_expiry_holds_no_stream,
        unsubscribing_drops_the_stream_with_its_last_reader,
        unknown_filters_do_no_harm,
        a_message_is_appended_once_to_each_stream_that_exists,
        a_device_without_a_persistent_session_has_no_stream,
        a_device_stream_goes_on_where_it_was_read_to,
        reading_keeps_to_its_limits_and_the_first_message_always_comes,
        an_expired_message_is_still_read_from_a_stream,
        durable_filters_are_all_filters_that_have_a_stream,
        many_readers_keep_a_message_until_the_slowest_has_it;
    claims:
        kept,
        a_message_claimed_by_one_member_is_given_to_no_other,
        each_member_counts_for_itself_what_it_claims,
        what_is_asked_again_is_answered_again,
        the_end_tells_whether_there_is_more_to_claim,
        a_claim_keeps_to_its_limits_and_the_first_message_always_comes,
        what_is_saved_is_settled_and_the_rest_is_given_back_at_the_close,
        what_several_gave_back_is_claimed_the_oldest_first,
        a_resume_gives_nothing_back_and_claims_its_own_again,
        a_former_owner_claims_nothing,
        who_does_not_read_the_stream_claims_nothing,
        who_rests_claims_nothing,
        who_knows_of_more_than_the_store_is_given_what_comes_next,
        a_save_beyond_all_that_was_claimed_settles_what_was,
        what_was_cut_off_is_passed_over_and_keeps_its_numbers,
        what_was_cut_off_under_a_member_holds_nothing_back,
        what_grew_too_old_is_nobodys_whoever_had_it,
        a_stream_that_keeps_what_it_has_keeps_what_is_claimed_given_back_and_held;
    holds:
        a_message_on_hold_is_not_claimed,
        a_hold_that_ends_as_taken_settles_the_message,
        a_hold_that_ends_as_not_taken_frees_the_message,
        a_hold_whose_time_is_over_frees_the_message,
        a_hold_behind_what_waits_changes_no_order,
        what_is_held_keeps_to_the_bounds_of_its_stream,
        a_hold_for_a_group_that_nobody_is_in_goes_nowhere;
    groups:
        a_new_member_claims_what_waits,
        what_comes_while_nobody_is_connected_is_divided_among_those_who_come_back,
        who_holds_nothing_holds_nothing_back,
        a_dead_node_leaves_what_its_member_held_at_its_burial,
        what_a_leaving_member_has_not_settled_is_given_back,
        a_close_that_ends_the_session_settles_what_it_says,
        who_comes_back_into_a_group_that_it_left_counts_on,
        a_member_that_is_written_back_keeps_what_it_claimed,
        who_saves_at_rest_settles_nothing_that_it_gave_back,
        a_close_that_is_repeated_gives_back_what_is_there_once,
        a_group_ends_with_its_last_member;
    progress:
        a_resume_gives_back_what_was_saved,
        cursors_only_move_forward_and_never_beyond_the_end,
        a_cursor_of_a_stream_that_is_not_read_is_passed_over,
        a_close_saves_its_progress,
        a_lookup_shows_owner_and_subscriptions,
        a_lookup_shows_since_when_and_until_when,
        a_lookup_counts_what_waits_for_this_client_alone;
    retained:
        a_topic_keeps_its_last_retained_message,
        an_empty_payload_removes_the_retained_message,
        retained_messages_are_read_page_by_page_in_order,
        a_page_of_retained_messages_ends_with_the_one_that_makes_it_long_enough,
        every_page_is_full_however_the_topics_are_spread,
        topics_with_a_dollar_are_not_found_by_wildcards,
        an_expired_retained_message_is_not_read,
        a_filter_finds_its_parent_topic_too;
    order:
        requests_for_one_client_take_effect_in_order_of_submission,
        an_answer_may_submit_again,
        many_threads_get_every_answer;
    leases:
        a_node_whose_lease_runs_out_while_it_owns_sessions_is_dead,
        a_renewed_lease_keeps_a_node_alive,
        a_dead_node_is_forgotten_once_others_own_its_sessions,
        a_node_is_told_whether_its_lease_was_known,
        a_node_that_owned_nothing_and_comes_back_late_does_not_think_that_the_store_lost_its_data,
        a_node_whose_lease_runs_cannot_be_buried,
        a_buried_node_neither_renews_nor_opens,
        a_node_that_never_had_a_lease_can_be_buried;
    reaping:
        a_reaped_session_rests_from_then_on,
        a_reaped_session_expires_as_if_its_connection_had_ended,
        a_reaped_session_without_expiry_ends,
        reaping_again_changes_nothing,
        who_came_back_before_the_reaper_is_not_reaped,
        a_session_that_its_owner_closed_goes_on_resting,
        a_dead_owner_cannot_write_what_was_reaped,
        a_will_falls_due_after_its_delay_or_with_its_session,
        a_will_is_given_again_until_it_is_published,
        as_many_wills_are_given_as_are_wanted,
        who_comes_back_in_time_takes_its_will_back,
        who_comes_back_too_late_is_answered_its_will,
        who_was_given_a_will_may_publish_it_though_the_client_came_back,
        who_opens_before_its_buried_owner_is_reaped_does_not_lose_its_will;
    wills:
        the_will_of_a_close_falls_due_after_its_delay_or_with_its_session,
        the_number_of_a_closed_sessions_will_is_its_epoch,
        a_close_without_a_will_forgets_the_one_of_its_connection,
        who_resumes_in_time_strikes_out_the_will_of_the_close,
        a_clean_start_is_answered_the_will_that_waited_for_its_delay,
        a_second_close_changes_no_will,
        a_second_close_that_ends_the_session_earlier_brings_its_will_forward,
        who_takes_a_session_over_is_answered_the_will_that_falls_due_by_it,
        who_resumes_anothers_session_before_the_delay_takes_its_will_away,
        an_owner_is_not_answered_the_will_of_its_own_connection,
        a_will_that_its_opener_published_is_never_given,
        an_opening_that_is_repeated_is_answered_alike,
        what_an_owner_was_answered_is_left_to_it_alone,
        each_connection_of_a_hasty_client_has_its_will,
        a_late_close_of_a_former_owner_strikes_out_its_will,
        a_late_close_strikes_out_nobody_elses_will,
        who_opens_a_buried_owners_session_is_answered_its_will_under_another_number,
        a_will_that_fell_due_and_was_given_to_nobody_yet_is_the_openers,
        a_will_that_was_given_to_somebody_is_not_the_openers,
        writing_a_session_back_strikes_out_the_will_that_waits_for_it,
        wills_are_bounded_and_no_session_fails_to_end_for_them;
    locks:
        a_lock_has_one_holder_until_its_time_is_over,
        who_holds_a_lock_keeps_it_by_asking_again;
    listing:
        each_session_is_on_one_page,
        sessions_are_listed_by_owner,
        sessions_whose_rest_is_over_are_not_listed,
        who_stays_is_listed_once_however_many_come_and_go,
        a_page_that_was_never_named_is_refused;
    members:
        clients_come_into_a_group_and_leave_it,
        who_is_to_come_and_to_leave_leaves,
        a_group_ends_with_its_last_member_or_by_word,
        members_are_read_page_by_page,
        a_group_is_bounded;
    collapse:
        a_newer_message_under_a_key_takes_the_olders_place,
        what_was_settled_is_not_replaced,
        streams_of_filters_pass_a_collapse_key_over,
        a_key_that_is_used_for_ever_takes_the_room_of_one_message,
        a_stream_that_keeps_what_it_has_says_that_it_is_full,
        a_stream_that_keeps_what_it_has_is_bounded_in_bytes,
        a_full_stream_takes_what_replaces_an_older_message;
    write_back:
        a_session_is_written_back_as_its_owner_knows_it,
        writing_back_again_changes_nothing,
        a_session_without_expiry_is_written_back_with_its_owner_alone,
        who_lost_a_session_cannot_write_it_back,
        an_older_state_of_a_session_gives_way_and_keeps_its_cursors,
        a_session_that_ended_elsewhere_is_not_written_back,
        a_will_is_written_back_too;
    returns:
        offsets_go_on_behind_those_of_a_stream_that_was_lost,
        a_stream_that_is_made_again_begins_behind_the_former_one,
        what_the_first_has_settled_waits_for_those_who_come_back_later,
        what_is_kept_for_those_who_come_back_gives_way_to_what_is_unread,
        a_message_of_a_group_waits_for_nobody_who_has_not_been_given_it;
    bounds:
        a_stream_keeps_its_newest_messages_and_leaves_a_gap,
        a_stream_forgets_messages_that_are_too_old,
        a_full_store_takes_on_and_cuts_the_stream_that_holds_most,
        a_stream_at_its_own_bound_makes_its_own_room,
        who_lets_messages_pile_up_costs_only_itself,
        retained_messages_take_at_most_half_of_the_store,
        what_does_not_fit_into_an_empty_store_is_refused,
        a_message_that_no_stream_may_hold_is_refused,
        sessions_are_bounded;
}
